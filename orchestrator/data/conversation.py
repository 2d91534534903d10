"""What one row of any data file becomes: a conversation, and the files that LLaMA-Factory reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.lib.files import write_text
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.lib.training_kinds import Kind as Kind

Role = Literal["user", "assistant", "system", "observation", "function_call"]

# The words LLaMA-Factory's sharegpt format uses for our roles (its default tags).
SHAREGPT_ROLE = {
    "user": "human",
    "assistant": "gpt",
    "system": "system",
    "observation": "observation",
    "function_call": "function_call",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. An observation is what a tool answered; a function_call is JSON with name and arguments."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row that LLaMA-Factory will take as it is.

    `messages` alternate between user (or observation) and assistant (or function_call); the system text is apart.
    They end with the answer, except for preference pairs, whose two answers are `chosen` and `rejected`.
    `desirable` is the thumb of a KTO row. `row` counts the data rows of the file from 1.
    """

    messages: tuple[Message, ...]
    system: str = ""
    tools: str = ""
    chosen: str = ""
    rejected: str = ""
    desirable: bool | None = None
    source: str = ""
    row: int = 1

    @property
    def prompt(self) -> str:
        """The text of the last user turn ('' if there is none)."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The text the model should learn to give: the last assistant turn, or the chosen one of a pair."""
        if self.chosen:
            return self.chosen
        return next((m.content for m in reversed(self.messages) if m.role in ("assistant", "function_call")), "")

    def question(self) -> list[dict[str, Any]]:
        """The system text and the turns up to the answer that is asked for, each with its role and content."""
        asked = self.messages if self.chosen else self.messages[:-1]
        system = [Message("system", self.system)] if self.system else []
        return [{"role": turn.role, "content": turn.content} for turn in (*system, *asked)]

    def each_answer(self) -> Iterator[Conversation]:
        """The conversation up to each of its answers; a pair, whose answers stand apart, as it is."""
        if self.chosen:
            yield self
            return
        for end, turn in enumerate(self.messages, start=1):
            if turn.role in ("assistant", "function_call"):
                yield replace(self, messages=self.messages[:end])

    def to_sharegpt(self) -> dict[str, Any]:
        """The row as LLaMA-Factory's sharegpt format spells it.

        System and tools are there even when empty, so that dataset_info.json may name them, which fails on a missing
        column, and so that `datasets`, which guesses the schema chunk by chunk, meets no chunk that differs.
        """
        turns = [{"from": SHAREGPT_ROLE[m.role], "value": m.content} for m in self.messages]
        row: dict[str, Any] = {"conversations": turns, "system": self.system, "tools": self.tools}
        if self.chosen or self.rejected:
            row["chosen"] = {"from": "gpt", "value": self.chosen}
            row["rejected"] = {"from": "gpt", "value": self.rejected}
        if self.desirable is not None:
            row["kto_tag"] = self.desirable
        return row


def write_rows(path: Path, conversations: Iterable[Conversation], kind: Kind = "sft") -> None:
    """Writes a JSON list, whole or not at all, as `text_of_rows` has it."""
    write_text(path, text_of_rows(conversations, kind))


def text_of_rows(conversations: Iterable[Conversation], kind: Kind = "sft") -> str:
    """A JSON list: plain texts for pre-training (`{"text": …}`), else sharegpt."""
    rows = ({"text": row.prompt} if TRAINING_KINDS[kind].reads else row.to_sharegpt() for row in conversations)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n" if lines else "[]\n"
