"""report: one HTML page of a run or a sweep."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import found_runs_dir_option, json_option, print_json


@click.command()
@click.argument("which", required=False, metavar="[RUN or SWEEP]")
@found_runs_dir_option
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@json_option
def report(which: str | None, runs_dir: Path, show: bool, as_json: bool) -> None:
    """Write one HTML page that opens from disk; the newest run's without a name.

    Example: orchestrator report --open
    """
    from orchestrator.report import find, write

    page = write(find(runs_dir, which))
    if as_json:
        print_json({"page": str(page)})
    else:
        click.echo(page)
    if show:
        click.launch(str(page))
