"""runs: list, show, compare, find the best, remove, export."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    download_progress,
    found_runs_dir_option,
    json_option,
    print_json,
    runs_dir_option,
    say,
    set_option,
    stderr_console,
    stdout_console,
)
from orchestrator.cli.lists import print_comparison, print_csv, print_lines
from orchestrator.lib.errors import InputError
from orchestrator.lib.layout import RECORD
from orchestrator.lib.translate import localised
from orchestrator.lib.words import counted
from orchestrator.runs import store
from orchestrator.runs.catalogue import DAMAGED

if TYPE_CHECKING:
    from orchestrator.runs.store import Run

name_option = click.option("--name", metavar="PATTERN", help="Only runs of this name; * stands for anything.")
metric_option = click.option("--metric", metavar="KEY", help="What decides [accuracy, or rougeL].")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
wanted_arguments = click.argument("wanted", nargs=-1, required=True, metavar="RUN…")


@click.group()
def runs() -> None:
    """List, compare and remove runs; a run is named by its id or a part of it.

    Example: orchestrator runs list --where 'accuracy>70' --sort accuracy
    """


@runs.command("list")
@found_runs_dir_option
@name_option
@click.option("--status", metavar="STATUS", help="running, completed, failed, interrupted, pruned or damaged.")
@click.option("--where", multiple=True, metavar="CONDITION", help="Such as 'accuracy>70'; repeatable, all must hold.")
@click.option("--sort", metavar="KEY", help="Best first; without it the newest comes first.")
@click.option("--show", multiple=True, metavar="KEY", help="One more column, such as gguf-q4_k_m.accuracy; repeatable.")
@click.option("-n", "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="Lines; 0 for all.")
@click.option("--trials", is_flag=True, help="A line for each trial, as with --where and --sort.")
@click.option("--csv", "as_csv", is_flag=True, help="All lines, comma-separated.")
@json_option
def list_(runs_dir: Path, limit: int, trials: bool, as_csv: bool, as_json: bool, **wanted: Any) -> None:
    """The runs there are: how old, over which base model, what sets them apart from others of their name, their size.

    Example: orchestrator runs list --where 'accuracy>70' --show learning_rate
    """
    from orchestrator.report.run_list import folded, list_of_runs
    from orchestrator.runs.query import Wanted, documents, listing

    if as_json:
        click.echo(documents(runs_dir, Wanted(**wanted)))
        return
    lines = listing(runs_dir, Wanted(**wanted))
    if as_csv:
        print_csv(lines)
        return
    each = trials or bool(wanted["where"] or wanted["sort"])
    groups = [[line] for line in lines] if each else folded(lines)
    print_lines(list_of_runs(runs_dir, groups[: limit or None]))
    if limit and len(groups) > limit:
        say(f"… {len(groups) - limit} more; --limit 0 shows all", err=True)
    if broken := [str(line["id"]) for group in groups[: limit or None] for line in group if line["status"] == DAMAGED]:
        say(f"{DAMAGED}: {', '.join(broken)}; `orchestrator verify RUN` says how", err=True)


@runs.command()
@click.argument("which", required=False, metavar="[RUN or SWEEP]")
@found_runs_dir_option
@json_option
def show(which: str | None, runs_dir: Path, as_json: bool) -> None:
    """One run: how it ended, its stages, its figures. The newest without a name. Of a sweep, its ranking.

    Example: orchestrator runs show
    """
    if which and (sweep := _sweep(runs_dir, which)):
        return _show_sweep(sweep, as_json)
    run = store.find(runs_dir, which)
    if run.problem:
        say(f"{run.problem}; this is its copy", err=True)
    if as_json:
        print_json(run.record)
        return
    from orchestrator.report.console import show_run
    from orchestrator.report.summary import about_files, outcome
    from orchestrator.runs.results import summaries

    measured = summaries(run.folder)
    say(f"{run.id}  {localised(run.record['status'])}\n{outcome(run.record, measured)[0]}")
    for line in about_files(measured):
        say(line, err=True)
    if about := run.record.get("scheduler"):
        say(_scheduled(about))
    for name, entry in run.record["stages"].items():
        reused = f"  taken from {entry['reused_from']}" if "reused_from" in entry else ""
        say(f"  {name:<18} {localised(entry['status']):<12} {entry.get('seconds') or 0:8.1f} s{reused}")
    show_run(run, stdout_console())


@runs.command()
@wanted_arguments
@found_runs_dir_option
@click.option("--artifact", default="tuned", show_default=True, help="Whose figures: tuned, base, gguf-q4_k_m, …")
@click.option("--page", type=click.Path(path_type=Path), metavar="FILE.html", help="Also write a page with the curves.")
@json_option
def compare(wanted: tuple[str, ...], runs_dir: Path, artifact: str, page: Path | None, as_json: bool) -> None:
    """What differs between runs: settings, figures with the paired test against the first, losses.

    Example: orchestrator runs compare 1a2b3c 4d5e6f --page compare.html
    """
    from orchestrator.report import write_comparison
    from orchestrator.report.run_list import settings
    from orchestrator.runs.compare import side_by_side

    found = _found(runs_dir, wanted)
    compared = side_by_side(found, artifact, settings(found))
    if page:
        write_comparison(compared, page)
        say(f"page: {page}", err=True)
    if as_json:
        print_json(compared)
    else:
        print_comparison(compared)


@runs.command()
@click.argument("sweep", required=False, metavar="[SWEEP]")
@found_runs_dir_option
@name_option
@metric_option
@json_option
def best(sweep: str | None, runs_dir: Path, name: str | None, metric: str | None, as_json: bool) -> None:
    """The best run of a sweep, or of all.

    Example: orchestrator runs best --metric gguf-q4_k_m.accuracy
    """
    if sweep:
        from orchestrator.sweep import records

        run = records.best_run(records.find(runs_dir, sweep))
    else:
        from orchestrator.runs.query import best as find_best

        run = store.find(runs_dir, find_best(runs_dir, name, metric)["id"])
    if as_json:
        print_json(run.record)
    else:
        click.echo(run.folder)


@runs.command()
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


@runs.command()
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


@runs.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--spec", type=click.Path(path_type=Path), default="spec.yaml", help="Whose data it was [spec.yaml].")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Its arguments [training_args.yaml].")
@set_option
@runs_dir_option
@json_option
def adopt(
    folder: Path, spec: Path, config: Path | None, overrides: tuple[str, ...], runs_dir: Path | None, as_json: bool
) -> None:
    """Make what was trained in LLaMA-Factory's board, or with its own command, a run; the folder stays as it is.

    Example: orchestrator runs adopt webui/saves/news/lora/train_2026-08-01-10-15-00
    """
    from orchestrator.pipeline.adopt import adopt as take
    from orchestrator.report.progress import Display
    from orchestrator.spec.load import load_project

    console, project = stderr_console(), load_project(spec, overrides, runs_dir)
    made = take(folder, config, project, Display(console), download_progress(console))
    if as_json:
        print_json({"run": made.run.id, "spec": str(made.spec)})
    else:
        say(f"run: {made.run.folder}\nspec: {made.spec}\ngo on with: orchestrator export {made.spec}")


@runs.command()
@click.argument("wanted", nargs=-1, metavar="[RUN…]")
@found_runs_dir_option
@click.option("--mlflow", "uri", required=True, metavar="URI", help="A tracking server, or sqlite:///mlflow.db")
def export(wanted: tuple[str, ...], runs_dir: Path, uri: str) -> None:
    """Log runs, all of them without a name, to MLflow; each only once.

    Example: orchestrator runs export --mlflow http://127.0.0.1:5000
    """
    from orchestrator.runs.export import export as to_mlflow

    chosen = _found(runs_dir, wanted) if wanted else list(store.every(runs_dir))
    new = to_mlflow(chosen, uri)
    say(f"{len(new)} of {counted(len(chosen), 'run')} exported; the others were there already")


def _sweep(runs_dir: Path, which: str) -> Path | None:
    """The sweep that a name means; None where a run has that name, or no sweep."""
    from orchestrator.sweep import records

    try:
        store.find(runs_dir, which)
    except InputError:
        if not any(which in file.parent.name for file in runs_dir.glob(f"*/{RECORD}")):  # several runs mean no sweep
            with contextlib.suppress(InputError):
                return records.find(runs_dir, which)
    return None


def _show_sweep(folder: Path, as_json: bool) -> None:
    from orchestrator.report.run_list import sweep_lines
    from orchestrator.sweep import records
    from orchestrator.sweep.display import show_ranking

    page = records.read(folder)
    if as_json:
        return print_json(page)
    say("\n".join(sweep_lines(page, folder)))
    show_ranking({"parameters": {}, "metric": "", **page}, stdout_console())


def _found(runs_dir: Path, wanted: Sequence[str]) -> list[Run]:
    return [store.find(runs_dir, word) for word in wanted]


def _scheduled(about: dict[str, str]) -> str:
    """Where a run went on, or waits to: `slurm job 12 on node3: RUNNING`."""
    from orchestrator.executors import EXECUTORS

    state = getattr(EXECUTORS.get(about["name"]), "state", None)
    said = state(about["job"]) if state else ""
    where = f" on {about['host']}" if "host" in about else ""
    return f"{about['name']} job {about['job']}{where}{': ' if said else ''}{said}"


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
