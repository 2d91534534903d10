"""What was found in data, on the screen: findings, and counts as bars."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from orchestrator.cli.common import stdout_console
from orchestrator.lib.translate import localised

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.data.checks import Finding
    from orchestrator.data.checks.tokens import TokenCounter
    from orchestrator.data.split import Stats

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
