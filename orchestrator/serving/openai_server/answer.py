"""Pieces of text as they come → thoughts, answer and calls of tools, up to what ends them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orchestrator.chat_template.thoughts import Parts, Splitter, overlap
from orchestrator.evaluation.calls import CallReader, Calls
from orchestrator.serving.openai_server.engine import Piece

Words = tuple[str, str]
"""What stands before and after a thought."""


class CallSplitter:
    """Takes an answer in pieces and tells the text in front of its calls as it comes, the calls at the end.

    What follows the words that a call begins with is held back; it is text after all where no call can be read of it,
    as of one that ran out of tokens. Without such words (GLM-4 begins with the tool's name) all is held back.
    """

    def __init__(self, reader: CallReader) -> None:
        self._reader, self._start = reader, reader.start
        self._text, self._told = "", 0
        self.calls: Calls = ()

    def feed(self, piece: str) -> str:
        """The text that this piece makes certain."""
        self._text += piece
        return self._tell(self._certain())

    def finish(self) -> str:
        """What was held back and is no call."""
        self.calls = self._reader.read(self._text)
        if not self.calls:
            return self._tell(len(self._text))
        return self._tell(self._certain())

    def _tell(self, end: int) -> str:
        told, self._told = self._text[self._told : end], max(self._told, end)
        return told

    def _certain(self) -> int:
        if not self._start:
            return 0
        if (at := self._text.find(self._start)) >= 0:
            return len(self._text[:at].rstrip())
        return len(self._text[: len(self._text) - overlap(self._text, self._start)].rstrip())


@dataclass(slots=True)
class Answer:
    """One answer as it grows. `stopped` once a text that ends it has come; no more is to be asked for then."""

    limit: int
    stops: Sequence[str] = ()
    thoughts: Words | None = None
    caller: CallSplitter | None = None
    """Where tools were offered."""
    tokens: int = 0
    stopped: bool = False
    parts: Parts = field(default_factory=Parts)
    confidence: dict[str, Any] | None = None
    """How likely each label was, where that was asked."""
    _text: str = field(default="", repr=False)
    _told: int = 0
    _splitter: Splitter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._splitter = Splitter(self.thoughts)

    def feed(self, piece: Piece) -> Parts:
        """What is certain to belong to the answer once this piece has come."""
        self.tokens += piece.tokens
        self._text += piece.text
        return self._grow(complete=False)

    def end(self) -> Parts:
        """What was held back for what might have come after it."""
        grown = self._grow(complete=True) + self._add(self._splitter.finish())
        if self.caller is None:
            return grown
        held = Parts(answer=self.caller.finish())
        self.parts += held
        return grown + held

    @property
    def calls(self) -> Calls:
        """The calls in it, once it has ended."""
        return self.caller.calls if self.caller else ()

    @property
    def finish_reason(self) -> Literal["stop", "length", "tool_calls"]:
        """Why it ended, in OpenAI's words."""
        if self.calls:
            return "tool_calls"
        return "length" if self.tokens >= self.limit and not self.stopped else "stop"

    def _grow(self, complete: bool) -> Parts:
        text, self.stopped = up_to(self._text, self.stops, complete)
        new, self._told = text[self._told :], len(text)
        return self._add(self._splitter.feed(new))

    def _add(self, grown: Parts) -> Parts:
        if self.caller:
            grown = replace(grown, answer=self.caller.feed(grown.answer))
        self.parts += grown
        return grown


def up_to(text: str, stops: Sequence[str], complete: bool) -> tuple[str, bool]:
    """The text before the first stop text, and whether there was one; without an end that may become one."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        return text[: min(found)], True
    begun = 0 if complete else max((overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - begun], False
