"""The command line: which command lives where, and the one place that prints errors.

Nothing but click and the errors is imported here, so that `--help` and a misspelt option answer at once.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from orchestrator import __version__
from orchestrator.lib.errors import Interrupted, OrchestratorError, of_system
from orchestrator.lib.language import localised, translates

COMMANDS = {
    "init": ("project", "Write a new project that runs."),
    "doctor": ("doctor", "What is on this machine, and what is missing."),
    "check": ("check", "Validate spec and data, or size up a model; start nothing."),
    "plan": ("chain", "Show the stages, what is up to date and why."),
    "train": ("chain", "Run the chain up to the trained model."),
    "evaluate": ("chain", "Run the chain up to the scores, or score a predictions file."),
    "export": ("chain", "Run the chain up to GGUF files that are proven to answer as trained."),
    "run": ("chain", "Run the whole chain."),
    "runs": ("runs", "List, show, compare and remove runs."),
    "chat": ("serving", "Talk to what was trained."),
    "serve": ("serving", "Serve what was trained to any OpenAI client."),
    "push": ("push", "Bring it to Ollama, the Hugging Face hub or ModelScope."),
    "diagnose": ("diagnose", "Find out why a model answers badly where it is served."),
    "webui": ("ui", "Open LLaMA-Factory's own board with our data and runs."),
    "ui": ("ui", "Open runs, answers, chat and a form for new runs in a browser."),
    "report": ("report", "One HTML page of a run or a sweep."),
    "verify": ("report", "Hash every file of a run again and compare with what was recorded."),
    "reproduce": ("report", "Repeat a run from its record and say what differs."),
    "sweep": ("sweep", "Run the trials of the spec's sweep: section and rank them."),
    "learning-curve": ("sweep", "Find out whether more data would help."),
    "model": ("doctor", "Download or build base models."),
    "template": ("template", "Show and check what the model sees."),
    "data": ("data", "Import, check, clean and split data."),
    "schema": ("project", "The JSON schema of spec.yaml, for editors."),
    "completion": ("project", "Completion of commands and options for bash, zsh or fish."),
}
"""Name → module of this package, and the line that `--help` shows without importing it."""


GROUPS = {
    "Start": ("init", "doctor", "check", "plan"),
    "Run": ("train", "evaluate", "export", "run"),
    "Inspect": ("ui", "runs", "report", "verify", "reproduce"),
    "Ship": ("chat", "serve", "push", "diagnose", "template", "webui"),
    "Data and models": ("data", "model"),
    "Sweep": ("sweep", "learning-curve"),
    "Editor and shell": ("schema", "completion"),
}
"""How `--help` lists them."""


class Context(click.Context):
    """The context of our commands, whose pages of help are in the user's language; English ones are click's own."""

    def make_formatter(self) -> click.HelpFormatter:
        """Who writes a page of help."""
        if not translates():
            return super().make_formatter()
        from orchestrator.cli.help import HelpPage

        return HelpPage(width=self.terminal_width, max_width=self.max_content_width)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return with_pages(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A command that nobody knows gets the closest ones for an answer."""
        if args and args[0] not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        width = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])


def with_pages(command: click.Command) -> click.Command:
    """A command, and all below it, with our pages of help."""
    command.context_class = Context
    first = " ".join((command.help or "").split("\n\n")[0].split())
    command.short_help = localised(first) if translates() else None  # click shortens English, at its words
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        with_pages(below)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrator", message=localised("%(prog)s, version %(version)s"))
def cli() -> None:
    """From 300 question-answer pairs to a small language model of your own, with numbers you can trust.

    Everything is said in spec.yaml. Start with `orchestrator run`.
    """


def main() -> None:
    """Run the command line and end the process with the exit code of the error, as lib/errors.py has it."""
    _end_on_signals()
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        _print_usage(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end(Interrupted("interrupted", "Run the same command again: what was finished is kept."))
    except OrchestratorError as error:
        _end(error)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
    except OSError as error:  # a full disk, a folder without permission: the machine's fault, and the user's to fix
        _end(of_system(error))
    except Exception as error:
        _end(_bug(error))


def _bug(error: Exception) -> OrchestratorError:
    """A bug of ours, which keeps its traceback; a library may quote a URL or a token in it."""
    import traceback

    from orchestrator.lib.secrecy import redacted

    click.echo(redacted(traceback.format_exc()), err=True)
    said = f"internal error: {type(error).__name__}: {error}"
    report_it = "This is a bug of the orchestrator, not of your project: please report it with the lines above."
    return OrchestratorError(said, report_it)


def _print_usage(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a page of help, translated already
        error.show()
        return
    said = io.StringIO()
    error.show(said)
    click.echo(localised(said.getvalue()), err=True, nl=False)


def _end(error: OrchestratorError) -> NoReturn:
    """Say what went wrong; end with the exit code of the kind of error."""
    complain(error)
    sys.exit(error.exit_code)


def complain(error: OrchestratorError) -> None:
    """Say what went wrong and what to do next."""
    from orchestrator.lib.secrecy import redacted

    click.secho(localised(f"error: {redacted(error.message)}"), err=True, fg="red")
    if error.hint:
        click.echo(localised(f"hint: {error.hint}"), err=True)


def _end_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup asks for that
            signal.signal(number, _interrupt)
    sys.unraisablehook = _keep_interruption


def _keep_interruption(unraisable: Any) -> None:
    """What Python would only print: an interruption is kept, for `process.wait` to raise it again."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt | Interrupted):
        Interrupted.dropped = unraisable.exc_value
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}", "Run the same command again: what was finished is kept."
    )
