"""runs adopt, runs export: what LLaMA-Factory trained by itself becomes a run, and runs are logged to MLflow."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from orchestrator.cli.common import (
    download_progress,
    found_runs_dir_option,
    json_option,
    print_json,
    progress_display,
    runs_dir_option,
    say,
    set_option,
)
from orchestrator.lib.words import counted
from orchestrator.runs import store


@click.command()
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
    from orchestrator.spec.load import load_project

    project = load_project(spec, overrides, runs_dir)
    made = take(folder, config, project, progress_display(), download_progress())
    if as_json:
        print_json({"run": made.run.id, "spec": str(made.spec)})
    else:
        say(f"run: {made.run.folder}\nspec: {made.spec}\ngo on with: orchestrator export {shlex.quote(str(made.spec))}")


@click.command()
@click.argument("wanted", nargs=-1, metavar="[RUN…]")
@found_runs_dir_option
@click.option("--mlflow", "uri", required=True, metavar="URI", help="A tracking server, or sqlite:///mlflow.db")
def export(wanted: tuple[str, ...], runs_dir: Path, uri: str) -> None:
    """Log runs, all of them without a name, to MLflow; each only once.

    Example: orchestrator runs export --mlflow http://127.0.0.1:5000
    """
    from orchestrator.runs.export import export as to_mlflow

    chosen = [store.find(runs_dir, word) for word in wanted] if wanted else list(store.every(runs_dir))
    new = to_mlflow(chosen, uri)
    say(f"{len(new)} of {counted(len(chosen), 'run')} exported; the others were there already")
