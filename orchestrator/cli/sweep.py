"""sweep, sweep promote, learning-curve: one spec, many runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    announce,
    download_progress,
    on_option,
    print_json,
    project_of,
    runs_dir_option,
    say,
    spec_options,
    stderr_console,
    stdout_console,
    verbosity,
)
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, InputError, StageError
from orchestrator.lib.files import write_text
from orchestrator.lib.words import counted

if TYPE_CHECKING:
    from orchestrator.sweep.trial import TrialFactory

sweep_options = spec_options(
    click.option("--strict", is_flag=True, help="Exit with 4 if any trial failed, not only if none succeeded.")
)

HINTS = {
    "failed": "Fix what it says and run the same command again: only what failed is repeated.",
    "diverged": "Take the highest learning rates out of the sweep.",
    "unusable": "Read what it answers in evaluation/tuned.jsonl of its run; other learning rates may help.",
}
"""How trials ended that are not ranked → what to do if that goes for all of them; the first that occurs is said."""


class RunByDefault(click.Group):
    """A group in which whatever is no command of it is given to `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`sweep spec.yaml` is `sweep run spec.yaml`."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=RunByDefault)
def sweep() -> None:
    """Run the trials of the spec's sweep: section, or go on with them, and rank what they measured.

    \b
    orchestrator sweep [SPEC] [OPTIONS]     see: orchestrator sweep run --help
    orchestrator sweep promote [SWEEP]
    """


@sweep.command()
@sweep_options
@on_option
@click.option("--dry-run", is_flag=True, help="List the trials and start nothing.")
def run(dry_run: bool, strict: bool, as_json: bool, on: str | None, **options: Any) -> None:
    """Run every trial that is not done yet (the default command).

    Example: orchestrator sweep --set sweep.parallel=2
    """
    announce(f"reading {options['spec']}", {**options, "as_json": as_json})
    from orchestrator.spec.rules import doubts
    from orchestrator.sweep.display import show_ranking
    from orchestrator.sweep.run import section, trials_ahead
    from orchestrator.sweep.trial import TrialFactory

    if on:
        options["overrides"] = (*options["overrides"], f"sweep.executor={on}")
    project = project_of(options)
    for doubt in doubts(project.spec):
        say(f"warning: {doubt}", err=True)
    factory = TrialFactory(project, section(project), progress=download_progress())
    if dry_run:
        for line in trials_ahead(factory):
            say(line)
        return
    page = _carry_out(factory, options)
    print_json(page) if as_json else show_ranking(page, stdout_console())
    require_success(page, strict)


@sweep.command()
@click.argument("wanted", required=False, metavar="[SWEEP]")
@runs_dir_option
@click.option("--spec", type=click.Path(path_type=Path), help="The spec to copy [the one that was swept].")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it [SPEC with .best.yaml].")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
def promote(wanted: str | None, runs_dir: Path | None, spec: Path | None, output: Path | None, overwrite: bool) -> None:
    """Write the winner's values into a copy of the spec, comments kept.

    Example: orchestrator sweep promote -o specs/news-best.yaml
    """
    from orchestrator.sweep import records
    from orchestrator.sweep.winner import promoted

    root = layout.project_of(spec or Path(layout.SPEC))
    folder = records.find(runs_dir or root / "runs", wanted)
    spec = spec or Path(os.path.relpath(root / records.read(folder)["spec"]))
    target = output or spec.with_suffix(".best.yaml")
    if target.exists() and not overwrite:
        raise InputError(f"{target} is there already", "Name another file with --output, or say --overwrite.")
    write_text(target, promoted(folder, spec))
    click.echo(target)


@click.command("learning-curve")
@sweep_options
@click.option("--fractions", default="0.1,0.25,0.5,1", show_default=True, help="Shares of the training rows.")
@click.option("--seeds", default=3, show_default=True, help="Samples, and trainings, for each share.")
@click.option("--metric", help="What is measured [accuracy, or rougeL for generation].")
def learning_curve(fractions: str, seeds: int, metric: str | None, strict: bool, as_json: bool, **options: Any) -> None:
    """Train on shares of the data, and say what more of it would likely bring.

    Example: orchestrator learning-curve --fractions 0.25,0.5,1 --seeds 2
    """
    from orchestrator.sweep import learning_curve as curve

    project = project_of(options)
    factory = curve.factory(project, curve.shares(fractions), seeds, metric, download_progress())
    page = curve.finish(_carry_out(factory, options), project)
    print_json(page) if as_json else say(curve.text(page))
    require_success(page, strict)


def _carry_out(factory: TrialFactory, options: dict[str, Any]) -> dict[str, Any]:
    from orchestrator.report.progress import Display
    from orchestrator.sweep.display import SweepDisplay
    from orchestrator.sweep.run import run_sweep

    console, detail = stderr_console(), verbosity(options["quiet"], options["verbose"])
    with SweepDisplay(console, factory.sweep.metric, detail) as display:
        return run_sweep(factory, display, Display(console, detail))


def require_success(page: dict[str, Any], strict: bool) -> None:
    """Raise StageError or GateError when no trial can be ranked, or, when `strict`, if any cannot."""
    from orchestrator.sweep.display import ENDED

    if page["ranking"] and not strict:
        return
    for status in HINTS:
        if bad := [trial for trial in page["trials"] if trial["status"] == status]:
            of = f"{len(bad)} of {counted(len(page['trials']), 'trial')}"
            said = f"{of} {ENDED[status]}, such as trial {bad[0]['number']}: {bad[0]['reason']}"
            if status == "unusable":
                raise GateError(said, HINTS.get(status, ""))
            raise StageError(said, HINTS.get(status, ""))
