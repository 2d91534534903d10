"""The held-out rows of a run, or of any data file, asked through an endpoint: predictions that can be scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.chat_template.messages import to_messages
from orchestrator.chat_template.tools import canonical_tools
from orchestrator.chat_template.turns import special_tokens
from orchestrator.evaluation.calls import CallReader, in_json
from orchestrator.evaluation.rows import Row
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import read_json_lines
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts
from orchestrator.serving.endpoint import THOUGHT_WORDS, Endpoint, Reply, ask_all
from orchestrator.serving.http import try_post
from orchestrator.serving.prompts import Comparison, Told, compare, render_all
from orchestrator.serving.served import think, vocabulary


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that ends with a question, and the answer that is expected."""

    id: str
    prompt: str
    label: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Manner:
    """How questions are asked: at most so many tokens an answer, so many at a time, and what stands around thoughts."""

    max_new_tokens: int
    concurrency: int = 4
    words: tuple[str, str] = THOUGHT_WORDS
    reader: CallReader | None = None
    """Writes calls that a server tells apart as the models of the run write them."""


def of_run(run: Run) -> list[Question]:
    """The held-out rows as the run asked them."""
    keys = ("id", "prompt", "label", "messages")
    return [Question(**{key: record[key] for key in keys}, tools=record.get("tools", [])) for record in _records(run)]


def of_file(path: Path) -> list[Question]:
    """The rows of a data file in any format that training takes."""
    from orchestrator.data.reading import load, require

    conversations = require(load([str(path)]), at_least=1)
    return [
        Question(str(number), row.prompt, row.answer, to_messages(row.question()), _tools(row))
        for number, row in enumerate(conversations, 1)
    ]


def ask(
    questions: Sequence[Question],
    endpoint: Endpoint,
    manner: Manner,
    progress: Progress = lambda done, total: None,
) -> list[Reply]:
    """The endpoint's answers."""
    conversations = [question.messages for question in questions]
    tools = [question.tools for question in questions]
    return ask_all(endpoint, conversations, manner.max_new_tokens, manner.concurrency, progress, tools)


def predictions(questions: Sequence[Question], replies: Sequence[Reply], manner: Manner) -> list[Row]:
    """The rows with the answers to them, thoughts and calls included: as the models of a run write them."""
    return [_prediction(question, reply, manner) for question, reply in zip(questions, replies, strict=True)]


def _prediction(question: Question, reply: Reply, manner: Manner) -> Row:
    """Calls are those the server tells apart; where it tells none, those that stand in its text."""
    row = Row(question.id, question.prompt, question.label, reply.whole(manner.words, manner.reader))
    if reply.calls:
        row = replace(row, calls=reply.calls)
    if manner.reader:
        return row.with_calls(manner.reader)
    if not question.tools:
        return row
    return replace(row, calls=reply.calls, expected=in_json(question.label))


def as_trained(run: Run, endpoint: Endpoint) -> Endpoint:
    """The endpoint, told to think as the run was trained, which only Ollama takes from each request."""
    if endpoint.protocol != "ollama":
        return endpoint
    shown = try_post(endpoint, f"{endpoint.url}/api/show", {"model": endpoint.model}) or {}
    return replace(endpoint, think=think(run, shown.get("capabilities") or ()))


def against_training(run: Run, endpoint: Endpoint, replies: Sequence[Reply]) -> Comparison:
    """The prompts that the server made of the run's rows against those of training, as far as it tells them."""
    records = _records(run)
    tools = [record.get("tools", ()) for record in records]
    texts = render_all(endpoint, [record["messages"] for record in records], tools)
    told = [Told(text, reply.prompt_tokens) for text, reply in zip(texts, replies, strict=True)]
    kind = next(iter(artifacts.ggufs(run)), None)
    if kind is None:
        return compare(records, told, _bos(run))
    with vocabulary(run, kind) as gguf:
        return compare(records, told, gguf.bos, gguf.tokenize)


def _bos(run: Run) -> str | None:
    merged = run.folder / layout.MERGED
    return special_tokens(merged).bos if (merged / "tokenizer_config.json").is_file() else None


def _records(run: Run) -> list[dict[str, Any]]:
    file = run.folder / layout.PROMPTS
    if not file.is_file():
        raise InputError(f"run {run.id} has no held-out rows yet", "Name a data file with --rows.")
    return read_json_lines(file)


def _tools(row: Any) -> list[dict[str, Any]]:
    return canonical_tools(json.loads(row.tools))[0] if row.tools else []
