"""runs: list, show, compare, find the best; and what removes runs, takes them in and hands them on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.common import (
    found_runs_dir_option,
    json_option,
    metric_option,
    name_option,
    print_json,
    say,
    stdout_console,
    wanted_arguments,
)
from orchestrator.cli.exchange import adopt, export
from orchestrator.cli.lists import print_comparison, print_csv, print_lines
from orchestrator.cli.removal import prune, rm
from orchestrator.lib.errors import InputError
from orchestrator.lib.language import localised
from orchestrator.lib.layout import RECORD
from orchestrator.runs import store
from orchestrator.runs.catalogue import DAMAGED


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

    found = [store.find(runs_dir, word) for word in wanted]
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


def _scheduled(about: dict[str, str]) -> str:
    """Where a run went on, or waits to: `slurm job 12 on node3: RUNNING`."""
    from orchestrator.executors import EXECUTORS

    state = getattr(EXECUTORS.get(about["name"]), "state", None)
    said = state(about["job"]) if state else ""
    where = f" on {about['host']}" if "host" in about else ""
    return f"{about['name']} job {about['job']}{where}{': ' if said else ''}{said}"


for command in (adopt, export, prune, rm):
    runs.add_command(command)
