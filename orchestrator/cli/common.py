"""Options that several commands share, and how they print."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.lib.language import localised

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.report.progress import Display
    from orchestrator.spec.load import Project

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator; `--help` lists them from the last to the first."""
    return lambda command: functools.reduce(lambda done, option: option(done), options, command)


spec_argument = click.argument("spec", default="spec.yaml", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Override a key of the spec; repeatable."
)


class ExecutorName(click.ParamType):  # type: ignore[type-arg]  # generic for type checkers only
    """A name of EXECUTORS, which is read only where one is given or help is shown."""

    name = "executor"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The choices, as `--help` shows them."""
        from orchestrator.executors import EXECUTORS

        return f"[{'|'.join(EXECUTORS)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is. Fails as a wrong choice does."""
        from orchestrator.executors import EXECUTORS

        if value not in EXECUTORS:
            self.fail(f"{value!r} is not one of {', '.join(EXECUTORS)}.", param, ctx)
        return str(value)


on_option = click.option("--on", type=ExecutorName(), help="Where it runs [local]; a cluster needs a shared disk.")
runs_dir_option = click.option(
    "--runs-dir", type=click.Path(path_type=Path), help="Where runs are kept [project's runs/]."
)
verbosity_options = together(
    click.option("-q", "--quiet", is_flag=True, help="Only results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Also the exact commands."),
)


def project_here() -> Path:
    """The project that the current folder belongs to."""
    from orchestrator.lib import layout

    return layout.project_of(Path(layout.SPEC))


def _project_runs(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    return value or project_here() / "runs"


found_runs_dir_option = click.option(
    "--runs-dir", type=click.Path(path_type=Path), callback=_project_runs, help="Where runs are kept [project's runs/]."
)
"""For commands without a spec: the runs of the project that the current folder belongs to."""
name_option = click.option("--name", metavar="PATTERN", help="Only runs of this name; * stands for anything.")
metric_option = click.option("--metric", metavar="KEY", help="What decides [accuracy, or rougeL].")
wanted_arguments = click.argument("wanted", nargs=-1, required=True, metavar="RUN…")


def spec_options(*own: Decorator) -> Decorator:
    """What all that starts from a spec has in common, and options of a command's own between --runs-dir and --json."""
    return together(spec_argument, set_option, runs_dir_option, *own, json_option, verbosity_options)


def project_of(options: dict[str, Any]) -> Project:
    """The project that these options ask for. Raises InputError with every problem in its spec."""
    from orchestrator.spec.load import load_project

    more = {name: options[name] for name in ("force", "paranoid") if name in options}
    return load_project(options["spec"], options["overrides"], options["runs_dir"], **more)


def verbosity(quiet: bool, verbose: bool) -> int:
    """−1, 0 or 1."""
    return int(verbose) - int(quiet)


def stderr_console() -> Console:
    """Diagnostics and progress."""
    from orchestrator.cli.console import LocalConsole

    return LocalConsole(stderr=True)


def stdout_console() -> Console:
    """Results. Without a terminal, a width that tables fit in instead of the 80 columns that rich assumes."""
    from orchestrator.cli.console import LocalConsole

    console = LocalConsole()
    return console if console.is_terminal or "COLUMNS" in os.environ else LocalConsole(width=110)


def say(text: str, err: bool = False, nl: bool = True) -> None:
    """A line for people, in their language; what programs read (JSON, paths, addresses) goes through click.echo."""
    click.echo(localised(text), err=err, nl=nl)


def announce(what: str, options: Mapping[str, Any]) -> None:
    """Say at once, to whoever watches, what is being done: what it takes to do it is imported and read after this."""
    if sys.stderr.isatty() and not options.get("quiet") and not options.get("as_json"):
        say(f"… {what}", err=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def secret(variable: str | None) -> str | None:
    """The value of the variable that --api-key-env names; a key on the command line would be seen by everybody."""
    if variable is None:
        return None
    if not (value := os.environ.get(variable)):
        raise click.UsageError(f"--api-key-env {variable}: that variable is not set")
    return value


def progress_display(quiet: bool = False, verbose: bool = False) -> Display:
    """Shows the stages of a run as they come and go."""
    from orchestrator.report.progress import Display

    return Display(stderr_console(), verbosity(quiet, verbose))


def download_progress(what: str = "fetching", counts: bool = False) -> Callable[[int, int], None]:
    """A progress bar for bytes, or for things that are counted; it appears with the first and goes with the last."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

    console, what = stderr_console(), localised(what)
    if not console.is_terminal:
        return _one_line(console, what, counts)
    column = MofNCompleteColumn() if counts else DownloadColumn()
    bar = Progress(TextColumn(f"  {what}"), BarColumn(), column, console=console, transient=True)
    click.get_current_context().call_on_close(bar.stop)  # which shows the cursor again, whatever ends the command

    def advance(done: int, total: int) -> None:
        if not bar.task_ids and 0 < done < total:
            bar.start()
            bar.add_task(what, total=total)
        for task in bar.task_ids:
            bar.update(task, completed=done)
            if done >= total:
                bar.remove_task(task)
                bar.stop()

    return advance


def _one_line(console: Console, what: str, counts: bool) -> Callable[[int, int], None]:
    said = set()

    def advance(done: int, total: int) -> None:
        if done > 0 and total not in said:
            said.add(total)
            size = str(total) if counts else f"{total / 1e6:.0f} MB"
            console.print(f"  {what} {size}", highlight=False)

    return advance
