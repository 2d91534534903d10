"""Pieces of text as they come → content and thoughts, up to what ends the answer.

Both cuts are functions of the whole text so far, and what they give only ever grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.workers.openai_server.engine import Piece

Words = tuple[str, str]
"""What a thought begins and ends with."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What an answer grows by: text, or the thoughts that come before it."""

    content: str = ""
    thought: str = ""


@dataclass(slots=True)
class Answer:
    """One answer as it grows. `stopped` once a text that ends it has come; no more is to be asked for then."""

    limit: int
    stops: Sequence[str] = ()
    thoughts: Words | None = None
    tokens: int = 0
    stopped: bool = False
    content: str = ""
    thought: str = ""
    _text: str = field(default="", repr=False)

    def feed(self, piece: Piece) -> Delta:
        """What is certain to belong to the answer once this piece has come."""
        self.tokens += piece.tokens
        self._text += piece.text
        return self._grow(complete=False)

    def end(self) -> Delta:
        """What was held back for what might have come after it."""
        return self._grow(complete=True)

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """Why it ended, in OpenAI's words."""
        return "length" if self.tokens >= self.limit and not self.stopped else "stop"

    def _grow(self, complete: bool) -> Delta:
        text, self.stopped = up_to(self._text, self.stops, complete)
        complete = complete or self.stopped
        thought, content = split(text, self.thoughts, complete) if self.thoughts else ("", text)
        grown = Delta(content[len(self.content) :], thought[len(self.thought) :])
        self.content, self.thought = content, thought
        return grown


def up_to(text: str, stops: Sequence[str], complete: bool) -> tuple[str, bool]:
    """The text before the first stop text, and whether there was one; without an end that may become one."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        return text[: min(found)], True
    return text if complete else without_start_of(text, stops), False


def split(text: str, words: Words, complete: bool) -> tuple[str, str]:
    """The thought that a text begins with, and the answer after it, without the white space around the thought.

    A closing word alone is an empty thought, as GLM-4.7 writes it.
    """
    opening, closing = words
    start = text.lstrip()
    if not start.startswith(words):
        return "", text if complete or not any(word.startswith(start) for word in words) else ""
    thought, closed, rest = start.removeprefix(opening).partition(closing)
    if closed:
        return thought.strip(), rest.lstrip()
    return (thought if complete else without_start_of(thought, [closing])).strip(), ""


def without_start_of(text: str, words: Sequence[str]) -> str:
    """The text without an end that one of the words begins with."""
    held = (size for word in words for size in range(min(len(word), len(text)), 0, -1) if text.endswith(word[:size]))
    return text[: len(text) - max(held, default=0)]
