"""plan, train, evaluate, export, run: the chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    announce,
    download_progress,
    on_option,
    print_json,
    progress_display,
    project_of,
    say,
    spec_options,
    stdout_console,
)
from orchestrator.cli.endpoint import Asked, ask_endpoint, endpoint_options
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError

if TYPE_CHECKING:
    from orchestrator.pipeline.plan import Plan
    from orchestrator.pipeline.scheduler import Reporter
    from orchestrator.runs.store import Run
    from orchestrator.spec.load import Project

node_option = click.option(
    "--node-rank", type=int, metavar="N", help="Take part as node N in the training that node 0 begins [NODE_RANK]."
)
chain_options = spec_options(
    click.option("--force", multiple=True, metavar="STAGE", help="Repeat a stage, or all of a phase; repeatable."),
    click.option("--paranoid", is_flag=True, help="Hash every file again instead of trusting size and time."),
    click.option("--dry-run", is_flag=True, help="Show the plan and start nothing."),
)


@click.command()
@chain_options
@click.option("--render", type=click.Path(path_type=Path), metavar="DIR", help="Write the configs to a folder.")
def plan(render: Path | None, **options: Any) -> None:
    """Show the stages, which are up to date and why; -v also shows the exact commands.

    Example: orchestrator plan --set train.learning_rate=1e-4
    """
    announce(f"reading {options['spec']}", options)
    from orchestrator.pipeline.plan import make_plan

    made = make_plan(project_of(options))
    if render:
        _write_configs(made, render)
    _show_plan(made, options)


@click.command()
@chain_options
@on_option
@node_option
def train(**options: Any) -> None:
    """Run the chain up to the trained model.

    Example: orchestrator train --set train.num_train_epochs=3
    """
    _chain("train", options)


@click.command()
@chain_options
@on_option
@click.option("--predictions", type=click.Path(path_type=Path), metavar="FILE.jsonl", help="Score this file instead.")
@click.option("--task", type=click.Choice(["classification", "generation"]), help="What the answers are [guessed].")
@endpoint_options
def evaluate(predictions: Path | None, task: str | None, asked: Asked, **options: Any) -> None:
    """Run the chain up to the scores of base and tuned model, or score any predictions file or server.

    Example: orchestrator evaluate --predictions answers.jsonl --json
    """
    if asked.url:
        predictions = ask_endpoint(asked, options["runs_dir"] or layout.project_of(options["spec"]) / "runs")
    if predictions is None:
        _chain("evaluate", options)
    else:
        _score_file(predictions, task, options["as_json"])


@click.command()
@chain_options
@on_option
@click.option("--from", "sweep", metavar="SWEEP", help="Export the winner of a sweep: its id, or a part of it.")
def export(sweep: str | None, **options: Any) -> None:
    """Run the chain up to GGUF files that are proven to answer as the tuned model does.

    Example: orchestrator export --set 'export.gguf=[q4_k_m]'
    """
    if sweep is not None:
        from orchestrator.sweep.winner import overrides

        options["overrides"] = (*overrides(project_of(options), sweep), *options["overrides"])
    _chain("verify", options)


@click.command()
@chain_options
@on_option
@node_option
def run(**options: Any) -> None:
    """Run the whole chain: prepare → train → evaluate → export → quantise → verify.

    Example: orchestrator run specs/news-zh.yaml
    """
    _chain("verify", options)


def _chain(phase: str, options: dict[str, Any]) -> None:
    announce(f"reading {options['spec']}", options)
    from orchestrator.pipeline import nodes
    from orchestrator.pipeline.plan import make_plan

    if options.get("on") not in (None, "local") and options["force"]:
        raise click.UsageError("--force repeats a stage here; it cannot go with --on, where a lost node starts again")
    project = project_of(options)
    if options["dry_run"]:
        _show_plan(make_plan(project).until(phase), options)
    elif rank := nodes.rank_of(project.spec.launch, options.get("node_rank")):
        _take_part(project, rank, options)
    else:
        _run_until(project, phase, options)


def _take_part(project: Project, rank: int, options: dict[str, Any]) -> None:
    """As another node than the first in a training over several."""
    from orchestrator.pipeline import nodes

    joined = nodes.join(project, rank, progress_display(options["quiet"], options["verbose"]), download_progress())
    say(f"node {rank} took part in run {joined.id}", err=True)
    if options["as_json"]:
        print_json(joined.record)


def _run_until(project: Project, phase: str, options: dict[str, Any]) -> None:
    from orchestrator.pipeline.plan import make_plan
    from orchestrator.report.live import LiveRun

    reporter, done = LiveRun(progress_display(options["quiet"], options["verbose"])), None
    try:
        done = _carry_out(project, phase, reporter, options.get("on"))
    except GateError:
        if judged := make_plan(project).run:  # not the newest, where an older one is up to date
            _show_run(judged, options["as_json"])
        raise
    finally:
        reporter.write(done.folder if done else None)
    _show_run(done, options["as_json"])
    if phase == "verify" and project.spec.export.ollama.create:
        from orchestrator.cli.push import create_in_ollama

        create_in_ollama(done, project.spec.export.ollama.name or done.record["name"])


def _carry_out(project: Project, phase: str, reporter: Reporter, on: Any) -> Run:
    """Here, or on a cluster that is followed from here."""
    progress = download_progress()
    if on in (None, "local"):
        from orchestrator.pipeline.workflow import run_until

        return run_until(project, phase, reporter, progress, say=lambda line: say(line, err=True))
    from orchestrator.executors import create
    from orchestrator.executors.base import Wanted
    from orchestrator.pipeline.remote import hand_over

    folder, section = project.runs_dir / f".{layout.JOBS}", project.spec.sweep
    executor = create(on, section.wanted(on, folder) if section else Wanted(folder=folder))
    following = hand_over(project, phase, executor, progress)
    say(f"{following.job}: {following.task.run.folder}", err=True)
    return following.until_end(reporter)


def _show_plan(made: Plan, options: dict[str, Any]) -> None:
    from orchestrator.report.console import plan_json, plan_lines

    if options["as_json"]:
        print_json(plan_json(made))
    else:
        say("\n".join(plan_lines(made, options["verbose"])))


def _write_configs(made: Plan, folder: Path) -> None:
    from orchestrator.lib.files import write_text

    for planned in made.steps:
        for path, text in planned.step.files.items():
            write_text(folder / path, text)
    say(f"configs written to {folder}", err=True)


def _show_run(done: Any, as_json: bool) -> None:
    from orchestrator.report.console import show_run

    if as_json:
        print_json(done.record)
    else:
        show_run(done, stdout_console())


def _score_file(predictions: Path, task: str | None, as_json: bool) -> None:
    from orchestrator.evaluation.measure import evaluate_file
    from orchestrator.report.console import show_measurement

    measured = evaluate_file(predictions, task)
    if as_json:
        print_json(measured.to_json())
    else:
        show_measurement(measured, stdout_console())
