"""The thought apart from the answer, whatever pieces they come in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from orchestrator.chat_template.thoughts import Parts, Splitter, split
from orchestrator.serving.thoughts import VARIABLE, Thoughts

WORDS = ("<think>\n", "\n</think>\n\n")
SAID = "<think>\n看云。<b>\n</think>\n\n晴 <think>天"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize(
    ("said", "thought", "text"),
    [
        (SAID, "看云。<b>", "晴 <think>天"),
        ("\n <think>\n\n</think>\n\nB", "", "B"),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("<thi", "", "<thi"),
        (" plain </think>", "", " plain </think>"),
        ("", "", ""),
    ],
)
def test_pieces_of_any_size_tell_the_same(said: str, thought: str, text: str, size: int) -> None:
    splitter, parts = Splitter(WORDS), Parts()
    for at in range(0, len(said), size):
        parts += splitter.feed(said[at : at + size])
    assert parts + splitter.finish() == Parts(thought, text) == split(said, WORDS)


def served(monkeypatch: pytest.MonkeyPatch, kind: str, bodies: list[bytes], words: Any = WORDS) -> bytes:
    """What comes out of the middleware."""
    monkeypatch.setenv(VARIABLE, json.dumps(words))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        for number, body in enumerate(bodies):
            more = number < len(bodies) - 1
            await send({"type": "http.response.body", "body": body, "more_body": more})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Thoughts(app)({"type": "http", "path": "/v1/chat/completions"}, None, send))
    return b"".join(message.get("body", b"") for message in sent)


def test_a_whole_answer_comes_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}}], "usage": {}}
    given = json.dumps(answer).encode()
    made = json.loads(served(monkeypatch, "application/json", [given[:40], given[40:]]))
    message = {"role": "assistant", "content": "晴 <think>天", "reasoning_content": "看云。<b>"}
    assert made == {"choices": [{"index": 0, "message": message}], "usage": {}}
    assert json.loads(served(monkeypatch, "application/json", [given], None)) == answer
    assert served(monkeypatch, "application/json", [b"no json"]) == b"no json"
    empty = {"choices": [{"message": {"role": "assistant", "content": "<think>\n\n</think>\n\n晴"}}]}
    made = json.loads(served(monkeypatch, "application/json", [json.dumps(empty).encode()]))
    assert made["choices"][0]["message"] == {"role": "assistant", "content": "晴"}


def test_a_stream_comes_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant"}, None)]
    deltas += [({"content": SAID[at : at + 4]}, None) for at in range(0, len(SAID), 4)]
    deltas.append(({}, "stop"))
    chunks = [{"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    whole = b": ping\r\n\r\n" + b"".join(f"data: {json.dumps(chunk)}\r\n\r\n".encode() for chunk in chunks)
    whole += b"data: [DONE]\r\n\r\n"
    text = served(monkeypatch, "text/event-stream; charset=utf-8", [whole[:333], whole[333:]]).decode()
    events = [line.removeprefix("data: ") for line in text.split("\r\n\r\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    parts = {key: "".join(one["delta"].get(key, "") for one in choices) for key in ("reasoning_content", "content")}
    assert parts == {"reasoning_content": "看云。<b>", "content": "晴 <think>天"}
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["stop"]
    assert choices[0]["delta"]["role"] == "assistant"
