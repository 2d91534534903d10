"""Data on the screen: what an import made, what was found, counts as bars."""

from __future__ import annotations

import io
import re
from textwrap import indent
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import print_json, say, stdout_console
from orchestrator.lib.errors import some
from orchestrator.lib.language import localised
from orchestrator.lib.words import agreeing, counted

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.data.checks import Finding
    from orchestrator.data.checks.tokens import TokenCounter
    from orchestrator.data.conversation import Conversation
    from orchestrator.data.import_ import Imported
    from orchestrator.data.split import Stats

LONGEST = 200
"""Characters of a turn that are shown."""
COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def show_findings(findings: list[Finding], tokens: TokenCounter | None) -> None:
    """A table of them, or that there are none; before it what was counted."""
    from rich.markup import escape
    from rich.table import Table

    console = stdout_console()
    if tokens and tokens.sample:
        console.print(tokens.summary(), highlight=False)
    if not findings:
        console.print("nothing found: no leakage, no copies, no odd rows", highlight=False)
        return
    table = Table("finding", "", "what, where, and an example", show_lines=True)
    for found in findings:
        rows = ", ".join(f"{file}:{row}" for file, row in found.rows[:5]) + (" …" if len(found.rows) > 5 else "")
        lines = [localised(found.message), rows, *found.examples[:1]]
        what = "\n".join(escape(line) for line in lines if line)
        table.add_row(found.kind, f"[{COLOURS[found.severity]}]{localised(found.severity)}[/]", what)
    console.print(table, highlight=False)


def drawn(found: Stats, title: str) -> str:
    """What the terminal shows, as SVG.

    Without the fonts that rich would have its viewer load from the network, and without its lengths of texts, which
    squeeze Chinese characters into half their width.
    """
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    console = Console(record=True, file=io.StringIO(), width=100)
    show_stats(found, console)
    drawn = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME)
    return re.sub(r'@font-face \{.*?\}|textLength="[^"]*"', "", drawn, flags=re.DOTALL)


def show_stats(found: Stats, console: Console) -> None:
    """Labels, lengths and scripts as bars."""
    from rich.markup import escape
    from rich.table import Table

    unusable = f", {found.unusable} more cannot be used" if found.unusable else ""
    size = f"{found.rows:,} rows{unusable}; half of them shorter than {found.median:,} characters"
    console.print(f"{size}, the longest {found.longest:,}", highlight=False)
    for title, bars in found.charts().items():
        table = Table(title, "rows", "", box=None)
        top = max(rows for _, rows in bars)
        for label, rows in bars:
            table.add_row(escape(label), f"{rows:,}", f"[blue]{'█' * max(1, round(40 * rows / top))}[/]")
        console.print(table)


def show_import(done: Imported, as_json: bool, told_to_spec: bool) -> None:
    """What became of a file; and what to write into a spec, unless that was done."""
    if as_json:
        left_out = [{"file": p.source, "row": p.row, "kind": p.kind, "message": p.message} for p in done.left_out]
        counts = {"train": done.train, "eval": done.held_out, "labels": dict(done.labels), "left_out": left_out}
        print_json({"folder": str(done.folder), "encoding": done.encoding or None, "columns": done.columns, **counts})
        return
    read_as = f", read as {done.encoding}" if done.encoding else ""
    say(f"{done.folder}: {counted(done.train, 'row')} to train on, {done.held_out} held out{read_as}", err=True)
    if done.left_out:
        problems = indent(some(list(map(str, done.left_out))), "  ")
        say(f"{counted(len(done.left_out), 'row')} left out:\n{problems}", err=True)
    if done.calls.rows:
        say(f"{counted(done.calls.rows, 'row')} {agreeing(done.calls.rows, 'call')} tools", err=True)
    if done.calls.inferred:
        made = f"no row says what its tools take: {', '.join(done.calls.inferred)} were made from the calls"
        say(f"{made}; give them descriptions", err=True)
    taken = ", ".join(f"{role} from {column!r}" for role, column in done.columns.items())
    say(f"columns: {taken}", err=True)
    if done.first:
        say("\n".join(["the first row:", *_rendered(done.first)]), err=True)
    if not told_to_spec:
        say("use it in spec.yaml, or let --write-spec spec.yaml write it:\n", err=True)
        click.echo(done.snippet())


def _rendered(row: Conversation) -> list[str]:
    """A row, a line a turn, cut where it is long."""
    turns = [("system", row.system)] if row.system else []
    turns += [(turn.role, turn.content) for turn in row.messages]
    turns += [(name, text) for name, text in (("chosen", row.chosen), ("rejected", row.rejected)) if text]
    return [f"  {role}: {text[:LONGEST]!r}{' …' if len(text) > LONGEST else ''}" for role, text in turns]
