"""Takes the thought out of a server's answers: `reasoning_content` beside `content`, as llama.cpp's own server has it.

The servers that `orchestrator serve` starts write all that the model writes, thought and the words around it included.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

VARIABLE = "ORCHESTRATOR_THOUGHT_WORDS"
"""Holds the two words around a thought as JSON; unset for models that were not trained to think."""
_EVENT_ENDS = re.compile(rb"\r?\n\r?\n")


class Thoughts:
    """ASGI middleware for OpenAI's chat completions, whole and streamed; without the variable it passes all on."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._words = json.loads(os.environ.get(VARIABLE, "null"))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer as the server does, the thought apart."""
        if self._words is None or not str(scope.get("path", "")).endswith("/chat/completions"):
            await self._app(scope, receive, send)
            return
        answer = _Answer(self._words)

        async def part(message: dict[str, Any]) -> None:
            for one in answer.messages(message):
                await send(one)

        await self._app(scope, receive, part)


class Splitter:
    """Tells a thought at the start of a text that comes in pieces from the answer behind it.

    White space in front of the thought and of the answer goes, as Ollama and llama.cpp's server have it.
    """

    def __init__(self, opening: str, closing: str) -> None:
        self._opening, self._closing = opening.strip(), closing.strip()
        self._key, self._held, self._begun = "", "", False

    def feed(self, text: str, last: bool = False) -> Iterator[tuple[str, str]]:
        """(`reasoning_content` or `content`, piece) as far as they can be told; what is left with the `last` text."""
        self._held += text
        if not self._key:
            self._begin(last)
        if self._key == "reasoning_content":
            yield from self._thought(last)
        if self._key == "content":
            yield from self._out(self._held)
            self._held = ""

    def _begin(self, last: bool) -> None:
        start = self._held.lstrip()
        if start.startswith(self._opening):
            self._key, self._held = "reasoning_content", start.removeprefix(self._opening)
        elif last or not self._opening.startswith(start):
            self._key, self._begun = "content", True

    def _thought(self, last: bool) -> Iterator[tuple[str, str]]:
        thought, closed, rest = self._held.partition(self._closing)
        kept = 0 if closed or last else _overlap(thought, self._closing)
        yield from self._out(thought[: len(thought) - kept])
        self._held = rest if closed else thought[len(thought) - kept :]
        if closed:
            self._key, self._begun = "content", False

    def _out(self, text: str) -> Iterator[tuple[str, str]]:
        text = text if self._begun else text.lstrip()
        if text:
            self._begun = True
            yield self._key, text


class _Answer:
    """The messages of one answer: a JSON body is held until it is whole, events go on one by one."""

    def __init__(self, words: tuple[str, str]) -> None:
        self._words = words
        self._start: dict[str, Any] = {}
        self._streamed, self._held = False, b""
        self._splitters: dict[int, Splitter] = {}

    def messages(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if message["type"] == "http.response.start":
            self._start = message
            self._streamed = b"text/event-stream" in dict(message["headers"]).get(b"content-type", b"")
            if self._streamed:
                yield message
        elif message["type"] != "http.response.body":
            yield message
        elif self._streamed:
            yield {**message, "body": b"".join(self._events(message))}
        else:
            self._held += message.get("body", b"")
            if not message.get("more_body"):
                yield from self._whole()

    def _whole(self) -> Iterator[dict[str, Any]]:
        body = _mapped(self._held, self._complete)
        headers = [(key, value) for key, value in self._start["headers"] if key.lower() != b"content-length"]
        yield {**self._start, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        yield {"type": "http.response.body", "body": body}

    def _complete(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        for choice in answer.get("choices") or ():
            message = choice.get("message") or {}
            parts = dict(Splitter(*self._words).feed(message.get("content") or "", last=True))
            if "reasoning_content" in parts:
                message |= {"content": parts.get("content", ""), "reasoning_content": parts["reasoning_content"]}
        return [answer]

    def _events(self, message: dict[str, Any]) -> Iterator[bytes]:
        self._held += message.get("body", b"")
        *events, self._held = _EVENT_ENDS.split(self._held)
        if not message.get("more_body") and self._held.strip():
            events, self._held = [*events, self._held], b""
        for event in filter(None, events):
            data = event.removeprefix(b"data:").strip()
            if event.startswith(b"data:") and data != b"[DONE]":
                yield _mapped(data, self._pieces, b"data: ", b"\r\n\r\n")
            else:
                yield event + b"\r\n\r\n"

    def _pieces(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunk, or several: a piece may hold the end of the thought and the start of the answer."""
        choice = next(iter(chunk.get("choices") or ()), None)
        if choice is None:
            return [chunk]
        delta, ended = choice.get("delta") or {}, choice.get("finish_reason") is not None
        if not delta.get("content") and not ended:
            return [chunk]
        splitter = self._splitters.setdefault(choice.get("index", 0), Splitter(*self._words))
        others = {key: value for key, value in delta.items() if key != "content"}
        parts = [{key: text} for key, text in splitter.feed(delta.get("content") or "", last=ended)]
        deltas = [*parts, *([{}] if ended else [])] or ([{}] if others else [])
        if deltas:
            deltas[0] = {**others, **deltas[0]}
        ends = [None] * (len(deltas) - 1) + [choice.get("finish_reason")]
        made = [{**choice, "delta": one, "finish_reason": end} for one, end in zip(deltas, ends, strict=False)]
        return [{**chunk, "choices": [one]} for one in made]


def _mapped(body: bytes, change: Any, before: bytes = b"", after: bytes = b"") -> bytes:
    """A JSON object changed into one or more; anything else as it is."""
    try:
        found = json.loads(body)
    except ValueError:
        return before + body + after
    made = change(found) if isinstance(found, dict) else [found]
    return b"".join(before + json.dumps(one, ensure_ascii=False).encode() + after for one in made)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of a text may be the start of a word."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if word.startswith(text[-n:])), 0)
