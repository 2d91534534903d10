"""The held-out rows of a run, or of any data file, asked through an endpoint: predictions that can be scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import layout
from orchestrator.errors import InputError
from orchestrator.evaluation.rows import Row
from orchestrator.fetch import Progress
from orchestrator.files import read_json_lines
from orchestrator.records import Run
from orchestrator.ship.endpoint import Endpoint, ask_all


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that ends with a question, and the answer that is expected."""

    id: str
    prompt: str
    label: str
    messages: list[dict[str, str]]


def of_run(run: Run) -> list[Question]:
    """The held-out rows as the run asked them."""
    file = run.folder / layout.PROMPTS
    if not file.is_file():
        raise InputError(f"run {run.id} has no held-out rows yet", "Name a data file with --rows.")
    keys = ("id", "prompt", "label", "messages")
    return [Question(*(record[key] for key in keys)) for record in read_json_lines(file)]


def of_file(path: Path) -> list[Question]:
    """The rows of a data file in any format that training takes."""
    from orchestrator.data.reading import load, require

    conversations = require(load([str(path)]), at_least=1)
    return [
        Question(str(number), row.prompt, row.answer, _messages(row)) for number, row in enumerate(conversations, 1)
    ]


def answer(
    questions: list[Question],
    endpoint: Endpoint,
    max_new_tokens: int,
    concurrency: int = 4,
    progress: Progress = lambda done, total: None,
) -> list[Row]:
    """The rows with the endpoint's answers."""
    replies = ask_all(endpoint, [question.messages for question in questions], max_new_tokens, concurrency, progress)
    return [
        Row(question.id, question.prompt, question.label, reply.text)
        for question, reply in zip(questions, replies, strict=True)
    ]


def _messages(row: Any) -> list[dict[str, str]]:
    asked = row.messages if row.chosen else row.messages[:-1]
    system = [{"role": "system", "content": row.system}] if row.system else []
    return system + [{"role": message.role, "content": message.content} for message in asked]
