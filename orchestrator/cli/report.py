"""`report`, `verify`, `reproduce`: a run's page, whether it is what its record says, and whether it comes out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import (
    download_progress,
    found_runs_dir_option,
    json_option,
    print_json,
    progress_display,
    project_here,
    say,
    verbosity_options,
)
from orchestrator.lib.errors import GateError, some
from orchestrator.runs import store

if TYPE_CHECKING:
    from orchestrator.runs.store import Run


@click.command()
@click.argument("which", required=False, metavar="[RUN or SWEEP]")
@found_runs_dir_option
@click.option("--open", "show", is_flag=True, help="Open it.")
@click.option("--card", type=click.Path(path_type=Path), metavar="FILE", help="One picture instead: card.svg or .png")
@json_option
def report(which: str | None, runs_dir: Path, show: bool, card: Path | None, as_json: bool) -> None:
    """Write one HTML page that opens from disk, or a picture of what is proven; the newest run's without a name.

    Example: orchestrator report --open
    """
    from orchestrator.report import find, write

    made = _card(runs_dir, which, card) if card else write(find(runs_dir, which))
    if as_json:
        print_json({"card" if card else "page": str(made)})
    else:
        click.echo(made)
    if show:
        click.launch(str(made))


def _card(runs_dir: Path, which: str | None, file: Path) -> Path:
    from orchestrator.report import card

    return card.write(store.find(runs_dir, which), file)


@click.command()
@click.argument("wanted", required=False, metavar="[RUN]")
@found_runs_dir_option
@click.option(
    "--sign", type=click.Path(path_type=Path), metavar="KEY", help="Sign a run that is whole, with ssh-keygen."
)
@click.option("--key", type=click.Path(path_type=Path), metavar="KEY.pub", help="Also ask for a signature by this key.")
@json_option
def verify(wanted: str | None, runs_dir: Path, sign: Path | None, key: Path | None, as_json: bool) -> None:
    """Hash every file of a run again and compare with what was recorded; the newest run without a name.

    Example: orchestrator verify 20261124T081124Z
    """
    from orchestrator.runs import proof

    run = store.find(runs_dir, wanted)
    found, others, files = proof.damaged(run), proof.unproven(run), len(proof.recorded(run))
    said = proof.standing(run)
    if as_json:
        print_json({"run": run.id, "files": files, "damaged": found, "unproven": others, "record": said})
    if found:
        raise _damaged(run, found, files)
    if sign:
        say(f"signed: {proof.sign(run, sign)}", err=True)
    if key:
        proof.require_signed(run, key)
        said = f"signed by {key.name}"
    if not as_json:
        say(f"{run.id}: all {files} files are as recorded")
        say(f"its record: {said}")
        if others:
            say(f"nothing is recorded of {len(others)} more: {_grouped(others)}")


def _grouped(paths: list[str]) -> str:
    """Folders with how many files of each; files of the run's own folder by name."""
    from collections import Counter
    from pathlib import PurePath

    folders = Counter(str(PurePath(path).parent) for path in paths)
    alone = [path for path in paths if "/" not in path]
    return ", ".join([*alone, *(f"{folder}/ ({count})" for folder, count in folders.items() if folder != ".")])


def _damaged(run: Run, found: list[str], files: int) -> GateError:
    from orchestrator.pipeline.reproduce import remedy

    what = f"{len(found)} of {files} files of {run.id} are not as recorded:\n{some(found)}"
    if command := remedy(run):
        return GateError(
            what, f"`{command}` makes again what is not as it was; until then copy nothing out of this run."
        )
    return GateError(what, "Copy nothing out of this run: its spec, data and versions are not those of today any more.")


@click.command()
@click.argument("wanted", required=False, metavar="[RUN]")
@found_runs_dir_option
@click.option("--into", type=click.Path(path_type=Path), metavar="DIR", help="Runs folder [reproduced/ beside runs/].")
@json_option
@verbosity_options
def reproduce(wanted: str | None, runs_dir: Path, into: Path | None, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Repeat a run from its record, in another folder, and say what differs; the newest run without a name.

    Example: orchestrator reproduce 20261124T081124Z
    """
    from orchestrator.pipeline import reproduce as again

    run = store.find(runs_dir, wanted)
    target = into or runs_dir.with_name("reproduced")
    display = progress_display(quiet, verbose)
    compared = again.reproduce(run, project_here(), target, display, download_progress())
    if as_json:
        print_json(compared.to_json())
    else:
        for what, lines in (("made with", compared.made_with), ("other contents", compared.files)):
            for line in lines:
                say(f"{what}: {line}")
    if compared.results:
        what = some(list(compared.results))
        raise GateError(
            f"{compared.again.id} came out differently from {run.id}:\n{what}", "See `made with` for causes."
        )
    if not as_json:
        say(f"{compared.again.id}: data, weights and figures are those of {run.id}")
