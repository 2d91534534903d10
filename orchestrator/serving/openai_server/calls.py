"""Calls of tools in an answer that comes in pieces: what is text at once, what may become a call when it is whole."""

from __future__ import annotations

import json
import uuid
from typing import Any

from orchestrator.evaluation.calls import Call, CallReader, Calls


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
        sizes = range(min(len(self._start), len(self._text)), 0, -1)
        begun = next((size for size in sizes if self._text.endswith(self._start[:size])), 0)
        return len(self._text[: len(self._text) - begun].rstrip())


def as_openai(call: Call, index: int | None = None) -> dict[str, Any]:
    """A call as OpenAI answers it, with an id of its own; with its number in a stream."""
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    numbered = {} if index is None else {"index": index}
    return {**numbered, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
