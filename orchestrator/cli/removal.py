"""runs rm, runs prune: remove runs, after saying how many bytes that frees."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli.common import (
    found_runs_dir_option,
    json_option,
    metric_option,
    name_option,
    print_json,
    say,
    wanted_arguments,
)
from orchestrator.lib.errors import InputError
from orchestrator.lib.language import localised
from orchestrator.lib.words import counted
from orchestrator.runs import store

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command()
@wanted_arguments
@found_runs_dir_option
@yes_option
@json_option
def rm(wanted: tuple[str, ...], runs_dir: Path, yes: bool, as_json: bool) -> None:
    """Remove runs, after saying how many bytes that frees.

    Example: orchestrator runs rm 1a2b3c
    """
    from orchestrator.runs.prune import in_use

    folders = [store.find_folder(runs_dir, word) for word in wanted]
    if busy := in_use(folders):
        raise InputError(f"in use: {', '.join(folder.name for folder in busy)}", "Stop what works on it first.")
    _remove(folders, yes, as_json)


@click.command()
@click.option(
    "--keep-best", type=click.IntRange(min=1), default=3, show_default=True, help="How many of each name to keep."
)
@found_runs_dir_option
@name_option
@metric_option
@yes_option
@json_option
def prune(keep_best: int, runs_dir: Path, name: str | None, metric: str | None, yes: bool, as_json: bool) -> None:
    """Remove all runs but the best of each name; what is in use stays.

    Example: orchestrator runs prune --keep-best 3
    """
    from orchestrator.runs.prune import in_use, superfluous

    folders = superfluous(runs_dir, keep_best, name, metric)
    busy = in_use(folders)
    for folder in busy:
        say(f"kept, in use: {folder.name}", err=True)
    _remove([folder for folder in folders if folder not in busy], yes, as_json)


def _remove(folders: Sequence[Path], yes: bool, as_json: bool) -> None:
    from rich.filesize import decimal

    from orchestrator.runs.prune import freed, remove

    size = freed(folders)
    for folder in folders:
        click.echo(folder.name, err=True)
    if folders and not yes:
        if not sys.stdin.isatty():
            raise InputError(f"this would free {decimal(size)}; nothing was removed", "Say --yes to go ahead.")
        click.confirm(
            localised(f"Remove {counted(len(folders), 'run')} and free {decimal(size)}?"), abort=True, err=True
        )
    for folder in folders:
        remove(folder)
    if as_json:
        print_json({"removed": [folder.name for folder in folders], "bytes": size})
    else:
        say(f"removed {counted(len(folders), 'run')}, {decimal(size)} freed")
