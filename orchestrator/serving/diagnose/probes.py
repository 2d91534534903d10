"""The questions by which training and serving are compared, and rows of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.chat_template.jinja import Message

ROWS = 24
"""Rows that are asked: enough to tell a broken model from a sound one, few enough for a minute."""
LABEL_LENGTH = 40
"""Answers that are shorter, and repeat, are labels."""
QUESTIONS = ("Classify: \"the cup\" {x} 'goes' on\nSecond line.", "今天天气怎么样？\n“请”用一个词回答。")
SYSTEM = "You are a careful assistant.\n你很仔细。"
ANSWER = "没问题, fine."


@dataclass(frozen=True, slots=True)
class Probe:
    """A conversation that ends with a question."""

    shape: str
    """`question`, `system` (one is brought along) or `turns` (after an earlier answer)."""
    messages: Sequence[Message]
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the user's data: what is asked, without the system text that all share, and the right answer."""

    messages: Sequence[Message]
    answer: str


def probes(rows: Sequence[Row] = ()) -> list[Probe]:
    """Questions alone, after a system text and after an earlier turn; the user's own first, of which two suffice."""
    own = [Probe("question", row.messages, f"row {number}") for number, row in enumerate(rows[:2], 1)]
    made = []
    for number, text in enumerate(QUESTIONS, 1):
        asked, title = _said("user", text), f"question {number}"
        system, answer = _said("system", SYSTEM), _said("assistant", ANSWER)
        made.append(Probe("question", [asked], title))
        made.append(Probe("system", [system, asked], f"{title} after a system text"))
        made.append(Probe("turns", [asked, answer, _said("user", QUESTIONS[0])], f"{title} and an answer before"))
    return own + made


def read_rows(file: Path) -> tuple[list[Row], str | None]:
    """The first rows of a data file that have an answer and no tools, and the system text that all of them share.

    Raises InputError for a file that training could not read.
    """
    from orchestrator.data.reading import load, require

    conversations = [row for row in require(load([str(file)]), at_least=1) if row.answer and not row.tools]
    systems = {row.system for row in conversations}
    shared = systems.pop() or None if len(systems) == 1 else None
    rows = []
    for row in conversations[:ROWS]:
        asked = row.messages if row.chosen else row.messages[:-1]
        system = [_said("system", row.system)] if row.system and not shared else []
        rows.append(Row([*system, *(_said(message.role, message.content) for message in asked)], row.answer))
    return rows, shared


def labels(rows: Sequence[Row]) -> bool:
    """Whether the right answers are labels: short, and fewer than the rows."""
    answers = [row.answer for row in rows]
    return len(answers) > 3 and len(set(answers)) <= len(answers) / 2 and max(map(len, answers)) <= LABEL_LENGTH


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
