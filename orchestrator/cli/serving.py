"""chat, serve: talk to what was trained, serve it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    found_runs_dir_option,
    json_option,
    print_json,
    say,
    secret,
    stderr_console,
    stdout_console,
    together,
)
from orchestrator.lib import layout, process
from orchestrator.lib.errors import InputError, Interrupted, StageError
from orchestrator.lib.files import read_json
from orchestrator.lib.language import localised
from orchestrator.runs import store

if TYPE_CHECKING:
    from orchestrator.lib.process import Child
    from orchestrator.runs.store import Run
    from orchestrator.serving.chat import Conversation
    from orchestrator.serving.endpoint import Endpoint


run_options = together(
    click.option("--artifact", help="base, tuned, f16, q4_k_m, … [the gate's recommendation]."),
    found_runs_dir_option,
    click.argument("which", metavar="[RUN]", required=False),
)
force_option = click.option("--force", is_flag=True, help="Take files that are not those that were proven.")


@click.command()
@run_options
@click.option("--against", metavar="ARTIFACT", help="Ask this artifact too, side by side.")
@click.option("--system", help="System text [the one of training].")
@click.option("--tools", type=click.Path(path_type=Path), help="JSON list of tools to offer [those of held-out rows].")
@click.option("--once", metavar="TEXT", help="Ask this and end.")
@json_option
@click.option("--max-new-tokens", default=512, show_default=True, help="The longest answer.")
@force_option
def chat(
    which: str | None,
    runs_dir: Path,
    artifact: str | None,
    against: str | None,
    system: str | None,
    tools: Path | None,
    once: str | None,
    as_json: bool,
    max_new_tokens: int,
    force: bool,
) -> None:
    """Talk to what was trained, with exactly the template of training.

    Example: orchestrator chat --artifact q4_k_m --once "News category: Polka fever sweeps the charts"
    """
    from orchestrator.serving.artifacts import choose, thinking, tools_of
    from orchestrator.serving.chat import Conversation

    if as_json and once is None:
        raise click.UsageError("--json is for one answer: name the question with --once")
    run = store.find(runs_dir, which)
    names = [choose(run, artifact, force), *([choose(run, against, force)] if against else [])]
    with contextlib.ExitStack() as stack:
        endpoints = {name: stack.enter_context(_served(run, name)) for name in names}
        words, offered = thinking(run)[1], _read_tools(tools) if tools else tools_of(run)
        conversations = {
            name: Conversation(at, max_new_tokens, system, words, offered) for name, at in endpoints.items()
        }
        if once is None:
            _talk(run, conversations, [tool["function"]["name"] for tool in offered])
        elif as_json:
            print_json({"run": run.id, "answers": _answers(run, conversations, once)})
        else:
            _show_answers(conversations, once)


def _talk(run: Run, conversations: Mapping[str, Conversation], tools: Sequence[str]) -> None:
    from orchestrator.serving.chat import talk

    say(f"{' and '.join(conversations)} of {run.id}. /new forgets what was said, /quit ends.", err=True)
    if tools:
        say(f"It may call {', '.join(tools)}; answer a call with /result TEXT.", err=True)
    talk(conversations, _read_line, _show_answers_or_refusal)


def _answers(run: Run, conversations: Mapping[str, Conversation], text: str) -> list[dict[str, Any]]:
    from orchestrator.serving import confidence
    from orchestrator.serving.chat import answered

    surely = {name: confidence.measured(run, name) is not None for name in conversations}
    return [{"artifact": name, **answered(of, text, surely[name])} for name, of in conversations.items()]


@click.command()
@run_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port [the first free one from 8080 on].")
@click.option("--api-key-env", metavar="VAR", help="Take the key from this variable [a random key].")
@click.option("--context", default=4096, show_default=True, help="Tokens that a conversation may have.")
@force_option
def serve(
    which: str | None,
    runs_dir: Path,
    artifact: str | None,
    host: str,
    port: int | None,
    api_key_env: str | None,
    context: int,
    force: bool,
) -> None:
    """Serve what was trained to any OpenAI client, until Ctrl-C.

    Example: orchestrator serve --artifact q4_k_m --port 8080
    """
    from orchestrator.serving.artifacts import choose
    from orchestrator.serving.serve import running, where

    run = store.find(runs_dir, which)
    name = choose(run, artifact, force)
    at = where(host, port, secret(api_key_env), context)
    with running(run, name, at) as (endpoint, child), until_stopped(child, run.folder / layout.log(f"serve-{name}")):
        shown = "" if api_key_env else f"OPENAI_API_KEY={endpoint.key}\n"
        click.echo(f"OPENAI_BASE_URL={endpoint.url}\n{shown}model={endpoint.model}")
        say(f"serving {name} of {run.id}; Ctrl-C ends it, its log is logs/serve-{name}.log", err=True)


@contextlib.contextmanager
def until_stopped(child: Child, log: Path) -> Iterator[None]:
    """Wait for Ctrl-C once the block has told how to reach a server. Raises StageError when that ends by itself."""

    try:
        yield
        code = process.wait(child)
    except (KeyboardInterrupt, Interrupted):
        say("stopped", err=True)
        return
    raise StageError(f"the server ended with exit code {code}", f"Read {log}.")


@contextlib.contextmanager
def _served(run: Run, name: str) -> Iterator[Endpoint]:
    from orchestrator.serving.serve import running, where

    with stderr_console().status(localised(f"loading {name}")), contextlib.ExitStack() as stack:
        endpoint, _ = stack.enter_context(running(run, name, where(port=0)))
        loaded = stack.pop_all()
    with loaded:
        yield endpoint


def _read_tools(file: Path) -> list[dict[str, Any]]:
    """Raises InputError for a file that is not there or holds no tools."""
    from orchestrator.chat_template.tools import ToolError, canonical_tools

    try:
        return canonical_tools(read_json(file))[0]
    except (OSError, ValueError, ToolError) as error:
        raise InputError(
            f"--tools {str(file)!r}: {error}", "Write a JSON list of tools as OpenAI takes them."
        ) from None


def _read_line() -> str | None:
    try:
        return input("> ")
    except EOFError:
        return None


def _show_answers_or_refusal(conversations: Mapping[str, Conversation], text: str) -> None:
    """A text that the server refuses, as one that is too long, ends no conversation."""
    from orchestrator.cli import complain

    try:
        _show_answers(conversations, text)
    except InputError as error:
        complain(error)


def _show_answers(conversations: Mapping[str, Conversation], text: str) -> None:
    """One answer as it comes, or the answers of several in columns."""
    if len(conversations) == 1:
        for piece in next(iter(conversations.values())).say(text):
            click.echo(piece, nl=False)
        click.echo()
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(*conversations)
    table.add_row(*(Text(conversation.answer(text)) for conversation in conversations.values()))
    stdout_console().print(table)
