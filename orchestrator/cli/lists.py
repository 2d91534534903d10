"""Many runs on the screen: as lines, as a file for a spreadsheet, beside each other."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import click

from orchestrator.cli.common import say, stdout_console
from orchestrator.cli.help import cells
from orchestrator.lib.language import localised


def print_lines(lines: Sequence[dict[str, Any]]) -> None:
    """Runs, a line each, under their titles."""
    # Not a rich table: ten thousand lines would take it longer than the search for them.
    if not lines:
        say("no runs", err=True)
        return
    titles = list(lines[0])
    rows = [list(map(localised, titles))] + [[_told(title, _cell(line[title])) for title in titles] for line in lines]
    widths = [max(cells(row[column]) for row in rows) for column in range(len(titles))]
    click.echo("\n".join("  ".join(map(_padded, row, widths)).rstrip() for row in rows))


@functools.cache
def _told(title: str, cell: str) -> str:
    """A cell; in the user's language where it is of our own words, and not of the user's."""
    ours = title in ("age", "status") or (title == "differs" and "=" not in cell)
    return localised(cell) if ours else cell


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cells(cell))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def print_csv(lines: Sequence[dict[str, Any]]) -> None:
    """Runs, comma-separated."""
    import csv

    if lines:
        writer = csv.DictWriter(sys.stdout, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def print_comparison(compared: dict[str, Any]) -> None:
    """Runs beside each other: the settings and figures that differ, the losses, and what the tests say."""
    from rich.table import Table

    from orchestrator.report.table import figure_text
    from orchestrator.runs.training_log import loss_line

    console = stdout_console()
    columns = [run["id"] for run in compared["runs"]]
    settings, figures = (
        Table(title, *columns, box=None, pad_edge=False) for title in ("setting", compared["artifact"])
    )
    for line in compared["settings"]:
        settings.add_row(line["key"], *("" if value is None else str(value) for value in line["values"]))
    for line in compared["figures"]:
        figures.add_row(line["metric"], *(figure_text(value) if value else "" for value in line["values"]))
    curves = [loss_line([{"loss": loss} for _, loss in compared["losses"][column]]) for column in columns]
    figures.add_row(localised("training"), *map(localised, curves))
    for printed in (settings, figures, *compared["sentences"]):
        console.print(printed, markup=False, highlight=False)
