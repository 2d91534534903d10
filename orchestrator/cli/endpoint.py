"""evaluate --endpoint: the held-out rows asked through a server that is already running."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import download_progress, say, secret
from orchestrator.lib.words import counted
from orchestrator.runs import store

if TYPE_CHECKING:
    from orchestrator.serving.endpoint import Reply
    from orchestrator.serving.prompts import Comparison


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say."""

    url: str | None
    model: str | None
    key_variable: str | None
    concurrency: int
    run: str | None
    rows: Path | None
    output: Path | None
    max_new_tokens: int
    timeout: float


def endpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed to the command as one `Asked`."""
    options = (
        click.option("--endpoint", "url", metavar="URL", help="Ask this server: OpenAI-compatible, or Ollama."),
        click.option("--model", help="Its model [the first it lists]."),
        click.option("--api-key-env", "key_variable", metavar="VAR", help="Holds the server's key."),
        click.option("--concurrency", default=4, show_default=True, help="Questions at the same time."),
        click.option("--run", metavar="RUN", help="Whose held-out rows to ask [the newest run's]."),
        click.option("--rows", type=click.Path(path_type=Path), metavar="FILE", help="Ask a data file's rows."),
        click.option("--output", type=click.Path(path_type=Path), help="Where the predictions go."),
        click.option("--max-new-tokens", default=16, show_default=True, help="The longest answer."),
        click.option("--timeout", default=120.0, show_default=True, help="Seconds for one answer."),
    )

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        asked = Asked(**{field.name: values.pop(field.name) for field in fields(Asked)})
        return command(asked=asked, **values)

    for option in reversed(options):
        gathered = option(gathered)
    return gathered


def ask_endpoint(asked: Asked, runs_dir: Path) -> Path:
    """Ask the rows and write the predictions; returns their file."""
    from orchestrator.serving import answer_files, rows
    from orchestrator.serving.artifacts import call_reader, thinking
    from orchestrator.serving.endpoint import connect

    assert asked.url is not None
    run = None if asked.rows else store.find(runs_dir, asked.run)
    questions = rows.of_run(run) if run else rows.of_file(asked.rows or Path())
    endpoint = connect(asked.url, asked.model, secret(asked.key_variable), asked.timeout)
    moment = store.now()
    manner = rows.Manner(asked.max_new_tokens, asked.concurrency)
    if run:
        manner = replace(manner, words=thinking(run)[1], reader=call_reader(run))
        endpoint = rows.as_trained(run, endpoint)
    progress = download_progress("asking", counts=True)
    replies = rows.ask(questions, endpoint, manner, progress)
    own = (run.folder / "evaluation" if run else Path()) / answer_files.file_name(endpoint, moment)
    target = answer_files.keep(rows.predictions(questions, replies, manner), asked.output or own)
    say(f"{counted(len(questions), 'answer')} of {endpoint.model} in {target}", err=True)
    _tell_of_unreadable(replies)
    if run:
        answer_files.record(run, target, endpoint, len(questions), moment)
        _tell_of_prompts(rows.against_training(run, endpoint, replies))
    return target


def _tell_of_unreadable(replies: Sequence[Reply]) -> None:
    """How many answers the server itself could not make anything of."""
    if unread := [(number, reply.unreadable) for number, reply in enumerate(replies, 1) if reply.unreadable]:
        told = f"the server gave an error instead of {counted(len(unread), 'answer')}, taken as empty"
        say(f"warning: {told}; first: row {unread[0][0]}: {unread[0][1]}", err=True)


def _tell_of_prompts(found: Comparison) -> None:
    """Whether the server asked what training did: its answers say little of the model otherwise."""
    say(f"{found}{'' if found.passed else f'; first: {found.difference}'}", err=True)
    if not found.passed:
        say("warning: the server asks the model something else than it was trained on", err=True)
