"""Takes the thought out of a server's answers: `reasoning_content` beside `content`, as llama.cpp's own server has it.

The servers that `orchestrator serve` starts write all that the model writes, thought and the words around it included.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.chat_template.thoughts import Parts, Splitter, split

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
            message |= {"content": "", **_told(split(message.get("content") or "", self._words))}
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
        reason, delta = choice.get("finish_reason"), dict(choice.get("delta") or {})
        text = delta.pop("content", None)
        if not text and reason is None:
            return [chunk]
        deltas = [{key: piece} for key, piece in _told(self._added(choice, text or "", reason is not None)).items()]
        if reason is not None or (delta and not deltas):
            deltas.append({})
        ends = [*[None] * (len(deltas) - 1), reason]
        deltas[:1] = [{**delta, **one} for one in deltas[:1]]
        return [
            {**chunk, "choices": [{**choice, "delta": one, "finish_reason": end}]}
            for one, end in zip(deltas, ends, strict=False)
        ]

    def _added(self, choice: dict[str, Any], text: str, ended: bool) -> Parts:
        """What a piece adds to thought and answer of its choice."""
        splitter = self._splitters.setdefault(choice.get("index", 0), Splitter(self._words))
        return splitter.feed(text) + (splitter.finish() if ended else Parts())


def _told(parts: Parts) -> dict[str, str]:
    """What there is to say of each part, under OpenAI's name for it."""
    named = {"reasoning_content": parts.thought, "content": parts.answer}
    return {key: text for key, text in named.items() if text}


def _mapped(body: bytes, change: Any, before: bytes = b"", after: bytes = b"") -> bytes:
    """A JSON object changed into one or more; anything else as it is."""
    try:
        found = json.loads(body)
    except ValueError:
        return before + body + after
    made = change(found) if isinstance(found, dict) else [found]
    return b"".join(before + json.dumps(one, ensure_ascii=False).encode() + after for one in made)
