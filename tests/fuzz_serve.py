"""Requests that nobody sent yet, drawn from what the server says it takes: right ones, nearly right ones, and none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
from hypothesis import strategies as st

from orchestrator.serving.openai_server.message import Turn
from orchestrator.serving.openai_server.request import ChatRequest, CompletionRequest

FEW_TOKENS = 6
ODD_TEXTS = (
    "", "<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "{{ 7 * 7 }}{% raise %}", "<think>", "今天天气",
    "\0", "\u2028", "'\"\\", "\r\n\t", "👩\u200d👩\u200d👧", "x " * 400, "字" * 9000,
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(ODD_TEXTS)
"""Half surrogates among them."""
NUMBERS = st.one_of(
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.sampled_from([0, 1, -1, 0.0, 1e-300, 1e308, 2**31, 2**63]),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=3)
UNSAID = {name: st.none() for name in Turn.model_fields if name not in ("role", "content")}


def turn(*roles: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"role": st.sampled_from(roles), "content": TEXTS | PARTS}, optional=UNSAID)


ASKED = st.tuples(
    st.lists(turn("system", "developer"), max_size=1), st.lists(turn("user", "assistant"), max_size=3), turn("user")
).map(lambda parts: [*parts[0], *parts[1], parts[2]])
SHUFFLED = st.lists(turn("system", "developer", "user", "assistant"), max_size=4)
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "model": TEXTS,
    "messages": ASKED,
    "prompt": TEXTS,
    "max_tokens": st.integers(1, FEW_TOKENS),
    "max_completion_tokens": st.integers(1, FEW_TOKENS),
    "n": st.integers(1, 2),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}),
    "stop": TEXTS | st.lists(TEXTS, max_size=4),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(0, (1 << 31) - 1),
    "min_p": st.floats(0, 1),
    "seed": st.integers(-(1 << 70), 1 << 70),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repeat_penalty": st.floats(0, 10, exclude_min=True),
}
"""What each parameter may be. Those that change no answer, or are not done, are drawn from anything."""


@dataclass(frozen=True)
class Drawn:
    """One request."""

    path: str
    body: bytes
    streams: bool


def requests() -> st.SearchStrategy[Drawn]:
    """Of each kind of request: right, with some of it replaced by anything, and bytes that are cut or flipped."""
    kinds = [
        ("/chat/completions", ChatRequest, ("messages", "max_tokens", "stream")),
        ("/completions", CompletionRequest, ("prompt", "max_tokens", "stream")),
    ]
    return st.one_of(*(_kind(*kind) for kind in (kinds[0], kinds[0], kinds[1])))


def _kind(path: str, model: Any, needed: tuple[str, ...]) -> st.SearchStrategy[Drawn]:
    may = {name: RIGHT.get(name, JUNK) for name in model.model_fields}
    known = {name: st.none() | values for name, values in may.items() if name in RIGHT and name not in needed}
    must = {name: may[name] for name in needed}
    right = st.fixed_dictionaries(must, optional=known)
    any_of = {name: values | JUNK | SHUFFLED for name, values in may.items() if name not in needed}
    wrong = st.fixed_dictionaries(must, optional=any_of)
    odd = st.tuples(right, st.dictionaries(TEXTS | st.sampled_from([*may]), JUNK, max_size=2)).map(merged)
    bodies = st.one_of(right, right, wrong, odd, JUNK)
    whole = bodies.map(lambda body: Drawn(path, json.dumps(body).encode(), streams(body)))
    return st.one_of(whole, whole, whole, st.tuples(whole, st.integers(0, 400), st.integers(0, 255)).map(damaged))


def merged(parts: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    return parts[0] | parts[1]


def streams(body: Any) -> bool:
    return isinstance(body, dict) and body.get("stream") is True


def damaged(parts: tuple[Drawn, int, int]) -> Drawn:
    """One byte another one; or cut off there, where it becomes 0."""
    drawn, at, byte = parts
    at = min(at, len(drawn.body) - 1)
    end = drawn.body[at + 1 :] if byte else b""
    return Drawn(drawn.path, drawn.body[:at] + bytes([byte] if byte else []) + end, drawn.streams)


def require_sound(response: httpx.Response, drawn: Drawn) -> None:
    """An answer in OpenAI's shape, or a refusal in it; never a failure of the server's own."""
    assert response.status_code in (200, 400), (response.status_code, response.text[:500], drawn)
    if response.status_code == 400:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert error["message"]
    elif response.headers["content-type"].startswith("text/event-stream"):
        events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        assert events.pop() == "[DONE]", drawn
        assert all(json.loads(event)["choices"] is not None for event in events)
    else:
        answer = response.json()
        assert all(choice["finish_reason"] in ("stop", "length") for choice in answer["choices"])
        assert answer["usage"]["completion_tokens"] <= FEW_TOKENS * len(answer["choices"]), drawn
