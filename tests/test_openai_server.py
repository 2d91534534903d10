"""Our OpenAI-compatible server, over an engine with a script: what requests may say, and what comes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest

from orchestrator.chat_template.thoughts import Parts
from orchestrator.serving.openai_server.answer import Answer, up_to
from orchestrator.serving.openai_server.app import LONGEST_BODY, Service, make_app
from orchestrator.serving.openai_server.engine import Message, Piece, Sampling, Tool
from orchestrator.serving.openai_server.message import Refused
from orchestrator.serving.openai_server.request import ChatRequest, CompletionRequest, read

THINK = ("<think>", "</think>")
QUESTION = [{"role": "user", "content": "今天?"}]
OSLO = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


# ---- what a request may say


def chat(**values: Any) -> ChatRequest:
    return read(json.dumps({"messages": QUESTION, **values}).encode(), ChatRequest)


def refusal(body: bytes | dict[str, Any], kind: Any = ChatRequest) -> Refused:
    with pytest.raises(Refused) as caught:
        asked = read(body if isinstance(body, bytes) else json.dumps(body).encode(), kind)
        asked.conversation()
    return caught.value


def test_a_request_that_says_nothing_is_answered_as_it_was_measured() -> None:
    assert chat().sampling() == Sampling(temperature=0.0, repeat_penalty=1.0)
    nulls = {name: None for name in ChatRequest.model_fields if name != "messages"}
    assert chat(**nulls).sampling() == chat().sampling()
    assert (chat(**nulls).limit, chat(**nulls).n, chat(**nulls).stops) == (None, None, [])


def test_what_a_request_says_is_computed_with() -> None:
    given = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 7, "presence_penalty": 0.5}
    given |= {"frequency_penalty": -0.5, "repeat_penalty": 1.1}
    assert chat(**given).sampling() == Sampling(**given)
    assert chat(seed=-1).sampling().seed == 2**32 - 1
    assert chat(temperature=1e-9).sampling().temperature == 0.0
    assert (chat(max_tokens=3).limit, chat(max_completion_tokens=4, max_tokens=3).limit) == (3, 4)
    assert (chat(stop="x").stops, chat(stop=["x", "", "y"]).stops) == (["x"], ["x", "y"])


def test_texts_in_parts_are_joined_and_a_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "一"}, {"type": "text", "text": "二"}]
    messages = [{"role": "developer", "content": parts}, {"role": "user", "name": "ann", "content": parts}]
    assert chat(messages=messages).conversation() == [
        {"role": "system", "content": "一二"},
        {"role": "user", "content": "一二"},
    ]


def test_an_answer_of_ours_may_come_back_as_the_client_keeps_it() -> None:
    kept = {"role": "assistant", "content": "a", "reasoning_content": "so", "refusal": None, "annotations": []}
    kept |= {"audio": None, "function_call": None, "tool_calls": None}
    assert chat(messages=[*QUESTION, kept, *QUESTION]).conversation()[1] == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"repeat_penalty": 5e-324}, "repeat_penalty"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stop": [1]}, "stop[0]"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": "f"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temprature": 1}, "temprature"),
        ({"x-温度 1": 1}, "x-温度 1"),
        ({"str": 1}, "str"),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*QUESTION, {"role": "assistant"}]}, "messages[1].content"),
        ({"messages": [{**QUESTION[0], "tool_calls": [OSLO]}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [*QUESTION, {"role": "system", "content": "x"}, *QUESTION]}, "messages[1].role"),
        ({"messages": [{"role": "system", "content": "a"}] * 2 + QUESTION}, "messages[1].role"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "x"}]}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(values: dict[str, Any], param: str) -> None:
    found = refusal({"messages": QUESTION, **values})
    assert (found.status, found.param) == (400, param)
    assert param.split("[")[0] in found.message or "conversation" in found.message or "system" in found.message


@pytest.mark.parametrize(
    "values",
    [
        {"logprobs": False, "top_logprobs": 0, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
        {"logit_bias": {}, "modalities": ["text"], "user": "ann", "metadata": {"a": "b"}, "store": False},
    ],
)
def test_what_asks_for_nothing_is_no_reason_to_refuse(values: dict[str, Any]) -> None:
    assert chat(**values).sampling() == Sampling()


HALF_A_SURROGATE = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[1]", b"1", b"null", b'"x"', b"[" * 100_000, HALF_A_SURROGATE]
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    assert refusal(body).status == 400


def test_a_completion_takes_one_text() -> None:
    assert read(b'{"prompt": "x", "echo": false, "best_of": 1}', CompletionRequest).prompt == "x"
    for body in (b"{}", b'{"prompt": ""}', b'{"prompt": ["a"]}', b'{"prompt": "x", "echo": true}'):
        assert refusal(body, CompletionRequest).status == 400


# ---- how an answer grows


@pytest.mark.parametrize(
    ("text", "complete", "expected"),
    [
        ("a stop b", False, ("a ", True)),
        ("a st", False, ("a ", False)),
        ("a st", True, ("a st", False)),
        ("a END stop", False, ("a ", True)),
        ("a", False, ("a", False)),
    ],
)
def test_an_answer_ends_before_the_first_stop_text(text: str, complete: bool, expected: tuple[str, bool]) -> None:
    assert up_to(text, ["stop", "END"], complete) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_however_it_is_cut_the_parts_are_the_whole(size: int) -> None:
    text = "<think>\n想 about it\n</think>\n\nSports 体育STOPnever"
    answer = Answer(limit=1000, stops=["STOP"], thoughts=THINK)
    grown = [answer.feed(Piece(text[at : at + size])) for at in range(0, len(text), size)] + [answer.end()]
    assert sum(grown, Parts()) == answer.parts == Parts("想 about it", "Sports 体育")
    assert answer.finish_reason == "stop"


# ---- the routes, over an engine with a script


class Scripted:
    """An engine that answers with given pieces, and remembers what it was asked."""

    lacks = frozenset({"frequency_penalty"})

    def __init__(self, pieces: Sequence[str] | Callable[[], Generator[str, None, None]], context: int = 100) -> None:
        self._pieces, self.context = pieces, context
        self.asked: list[tuple[int, Sampling]] = []
        self.given = 0
        self.ended = 0

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        self.told = list(messages), list(tools)
        return self.encode("".join(message["content"] for message in messages))

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def answer(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> Generator[Piece, None, None]:
        self.asked.append((limit, sampling))
        try:
            for count, text in enumerate(self._pieces() if callable(self._pieces) else self._pieces, 1):
                self.given += 1
                yield Piece(text)
                if count == limit:
                    return
        finally:
            self.ended += 1


class Reply:
    """What an ASGI application sent."""

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self.status = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.text = b"".join(message.get("body", b"") for message in sent[1:]).decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[Any]:
        lines = [line.removeprefix("data: ") for line in self.text.split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def error(self) -> dict[str, Any]:
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return dict(self.json["error"])


def ask(
    served: Service,
    body: bytes | dict[str, Any] = b"",
    path: str = "/v1/chat/completions",
    method: str = "POST",
    key: str | None = None,
    stays: Callable[[], bool] = lambda: True,
) -> Reply:
    """One request, from a client that leaves once `stays` says so."""
    return asyncio.run(_ask(make_app(served), body, path, method, key, stays))


async def _ask(app: Any, body: bytes | dict[str, Any], path: str, method: str, key: str | None, stays: Any) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
    pending = [{"type": "http.request", "body": data, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        while stays():
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    await app(scope, receive, send)
    return Reply(sent)


def tiny(pieces: Any = ("Sp", "orts"), **how: Any) -> Service:
    return Service(Scripted(pieces), "tiny", **how)


def test_an_answer_whole_and_as_a_stream() -> None:
    whole = ask(tiny(), {"messages": QUESTION, "n": 2}).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]
    assert {choice["message"]["content"] for choice in whole["choices"]} == {"Sports"}
    assert {choice["finish_reason"] for choice in whole["choices"]} == {"stop"}
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    asked = {"messages": QUESTION, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    stream = ask(tiny(), asked)
    assert stream.headers["content-type"].startswith("text/event-stream")
    *chunks, counted, done = stream.events
    assert (done, counted["usage"], counted["choices"]) == ("[DONE]", whole["usage"], [])
    choices = [chunk["choices"][0] for chunk in chunks]
    for index in (0, 1):
        mine = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "Sports"
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["stop"]


def test_an_answer_ends_where_it_is_told_to_and_says_why() -> None:
    short = ask(tiny(), {"messages": QUESTION, "max_tokens": 1}).json["choices"][0]
    assert (short["message"]["content"], short["finish_reason"]) == ("Sp", "length")
    stopped = ask(tiny(), {"messages": QUESTION, "stop": "port"}).json["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("S", "stop")
    full = tiny()
    ask(full, {"messages": QUESTION, "max_tokens": 1000})
    assert full.engine.asked[0][0] == 100 - 7


def test_a_line_end_of_unicode_ends_no_event() -> None:
    stream = ask(tiny(("今\u2028天", "\x85")), {"messages": QUESTION, "stream": True})
    assert all(line.startswith("data: ") for line in stream.text.splitlines() if line)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in stream.events[:-1]) == "今\u2028天\x85"


def test_choices_of_one_seed_differ_and_come_again() -> None:
    served = tiny()
    ask(served, {"messages": QUESTION, "n": 2, "seed": 5, "temperature": 1})
    assert [sampling.seed for _, sampling in served.engine.asked] == [5, 6]


def test_thoughts_come_back_apart() -> None:
    served = tiny(("<thi", "nk>\n想", "想\n</", "think>", "\n\nSp", "orts"), thoughts=THINK)
    said = ask(served, {"messages": QUESTION}).json["choices"][0]["message"]
    assert said == {"role": "assistant", "reasoning_content": "想想", "content": "Sports"}
    deltas = [event["choices"][0]["delta"] for event in ask(served, {"messages": QUESTION, "stream": True}).events[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "想想"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Sports"
    plain = tiny(("<think>\n", "</think>\n\n", "x")).engine
    untold = ask(Service(plain, "tiny"), {"messages": QUESTION}).json["choices"][0]["message"]
    assert untold == {"role": "assistant", "content": "<think>\n</think>\n\nx"}


def test_a_prompt_that_does_not_fit_is_refused_before_a_stream_begins() -> None:
    served = tiny()
    for text in ("x" * 100, "x" * 100_000):
        reply = ask(served, {"messages": [{"role": "user", "content": text}], "stream": True})
        assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert served.engine.asked == []


def test_what_an_engine_cannot_compute_with_is_refused() -> None:
    assert ask(tiny(), {"messages": QUESTION, "frequency_penalty": 1}).error["param"] == "frequency_penalty"
    assert ask(tiny(), {"messages": QUESTION, "frequency_penalty": 0}).status == 200


def test_a_classifier_says_how_sure_it_is_when_asked() -> None:
    from dataclasses import replace

    told = {"label": "体育", "probability": 0.9, "probabilities": {"体育": 0.9, "财经": 0.1}}
    served = replace(tiny(), sure=lambda prompt: {**told, "prompt": len(prompt)})
    asked = {"messages": QUESTION, "confidence": True, "n": 2}
    whole = ask(served, asked).json
    assert [choice["confidence"] for choice in whole["choices"]] == [{**told, "prompt": 7}] * 2
    ends = [event["choices"][0] for event in ask(served, {**asked, "stream": True}).events[:-1]]
    assert [choice["confidence"] for choice in ends if choice["finish_reason"]] == [{**told, "prompt": 7}] * 2
    assert not [choice for choice in ends if "confidence" in choice and not choice["finish_reason"]]
    assert "confidence" not in ask(served, {"messages": QUESTION}).json["choices"][0]


def test_a_model_that_cannot_say_how_sure_it_is_refuses() -> None:
    assert ask(tiny(), {"messages": QUESTION, "confidence": True}).error["param"] == "confidence"
    assert ask(tiny(), {"messages": QUESTION, "confidence": False}).status == 200


def test_other_routes_and_methods_are_refused_in_the_same_shape() -> None:
    for path, method, status in (
        ("/v1/embeddings", "POST", 404), ("/v1/chat/completions", "GET", 405), ("/", "GET", 404), ("/docs", "GET", 404),
        ("/v1/models/other", "GET", 404), ("/v1/chat/completions", "POST", 400),
    ):  # fmt: skip
        reply = ask(tiny(), path=path, method=method)
        assert (reply.status, reply.error["type"]) == (status, "invalid_request_error")


def test_a_body_without_end_is_not_read() -> None:
    assert ask(tiny(), b" " * (LONGEST_BODY + 1)).status == 413


def test_the_key_opens_every_route_and_none_is_open_without() -> None:
    served = tiny(key="k€y")
    for path in ("/v1/models", "/openapi.json", "/nowhere"):
        for wrong in (None, "k", "k€y2"):
            assert ask(served, path=path, method="GET", key=wrong).error["code"] == "invalid_api_key"
    assert ask(served, path="/v1/models", method="GET", key="k€y").json["data"][0]["id"] == "tiny"
    assert ask(served, path="/v1/models/tiny", method="GET", key="k€y").json["id"] == "tiny"


def test_a_failing_engine_is_named_in_the_answer_and_in_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> Generator[str, None, None]:
        yield "Sp"
        raise RuntimeError("no memory left")

    stream = ask(tiny(fails), {"messages": QUESTION, "stream": True}).events
    assert stream[-1]["error"]["type"] == "server_error"
    assert "no memory left" in caplog.text
    with pytest.raises(RuntimeError, match="no memory left"):  # Starlette sends the 500, then raises it for the log
        ask(tiny(fails), {"messages": QUESTION})


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_computed_for_a_client_that_went_away_and_the_next_gets_its_turn(stream: bool) -> None:
    def endless() -> Generator[str, None, None]:
        while True:
            yield "x"

    engine = Scripted(endless, context=1 << 40)
    route, body = ("/v1/chat/completions", "POST", None), {"messages": QUESTION, "stream": stream}

    async def two_clients() -> tuple[Reply, Reply]:
        app = make_app(Service(engine, "tiny"))
        left = await _ask(app, body, *route, lambda: engine.given < 5)
        assert engine.ended == 1
        return left, await _ask(app, {"messages": QUESTION, "max_tokens": 3}, *route, lambda: True)

    left, stayed = asyncio.run(asyncio.wait_for(two_clients(), 60))
    assert left.status == (200 if stream else 499)
    assert stayed.json["choices"][0]["message"]["content"] == "xxx"
