"""Tools through `serve`: offered, called, answered, whole and as a stream, by OpenAI's own client too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import uvicorn

from orchestrator.evaluation.calls import Call, CallReader
from orchestrator.serving.openai_server.answer import CallSplitter
from orchestrator.serving.openai_server.app import Service, make_app
from tests.test_openai_server import OSLO, QUESTION, THINK, Scripted, ask

READER = CallReader("qwen")
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "additionalProperties": False, "properties": {"city": {"type": "string"}}},
    },
}
TRAINED = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLS = (Call("weather", {"city": '上海 "x"'}), Call("weather", {"city": "Oslo"}))
TWO = READER.written(CALLS)


def tools(text: str, **how: Any) -> Service:
    """A model that writes this text, character by character."""
    return Service(Scripted(list(text), context=1000), "tiny", reader=READER, **how)


def offered(served: Service, **values: Any) -> Any:
    return ask(served, {"messages": QUESTION, "tools": [WEATHER], **values})


def names_and_arguments(calls: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def test_calls_are_answered_as_calls() -> None:
    served = tools(TWO)
    choice = offered(served).json["choices"][0]

    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert names_and_arguments(choice["message"]["tool_calls"]) == [(call.name, call.arguments) for call in CALLS]
    assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2
    assert served.engine.told == (QUESTION, [TRAINED])


def test_a_stream_shows_text_at_once_and_calls_when_they_are_whole() -> None:
    chunks = [event["choices"][0] for event in offered(tools(f"I look.\n{TWO}"), stream=True).events[:-1]]

    assert "".join(chunk["delta"].get("content") or "" for chunk in chunks) == "I look."
    (called,) = [chunk["delta"]["tool_calls"] for chunk in chunks if "tool_calls" in chunk["delta"]]
    assert [call["index"] for call in called] == [0, 1]
    assert names_and_arguments(called) == [(call.name, call.arguments) for call in CALLS]
    assert chunks[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("text", ["It is sunny.", "<tool_call> is a word", "a <tool", '<tool_call>\n{"name": 1}'])
def test_what_is_no_call_is_text(text: str) -> None:
    choice = offered(tools(text)).json["choices"][0]
    events = offered(tools(text), stream=True).events[:-1]

    assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", "content": text}, "stop")
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == text


def test_a_call_cut_off_is_no_call() -> None:
    choice = offered(tools(TWO), max_tokens=30).json["choices"][0]

    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", TWO[:30])
    assert "tool_calls" not in choice["message"]


def test_a_thought_stands_apart_from_a_call() -> None:
    message = offered(tools(f"<think>so</think>{TWO}", thoughts=THINK)).json["choices"][0]["message"]

    assert (message["reasoning_content"], message["content"], len(message["tool_calls"])) == ("so", None, 2)


def test_without_an_offer_a_call_is_text_and_the_model_is_offered_none() -> None:
    served = tools(TWO)

    assert offered(served, tool_choice="none").json["choices"][0]["message"]["content"] == TWO
    assert served.engine.told[1] == []


def test_what_tools_answered_comes_back() -> None:
    served = tools("晴")
    answer = {"role": "assistant", "content": None, "tool_calls": [OSLO]}
    results = [{"role": "tool", "tool_call_id": "1", "content": "12"}]
    offered(served, messages=[*QUESTION, answer, *results])

    made = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
    assert served.engine.told[0][1:] == [
        {"role": "assistant", "content": "", "tool_calls": made},
        {"role": "tool", "content": "12"},
    ]


def test_a_model_trained_without_tools_says_so() -> None:
    refused = ask(Service(Scripted("x"), "tiny"), {"messages": QUESTION, "tools": [WEATHER]})

    assert (refused.status, refused.error["param"]) == (400, "tools")
    assert "trained without tools" in refused.error["message"]


def test_arguments_that_are_no_json_are_refused() -> None:
    broken = {"role": "assistant", "tool_calls": [{**OSLO, "function": {"name": "weather", "arguments": "{"}}]}
    refused = offered(tools("x"), messages=[*QUESTION, broken, {"role": "tool", "content": "1"}])

    assert (refused.status, "not JSON" in refused.error["message"]) == (400, True)


def test_every_way_to_cut_a_stream_gives_the_same() -> None:
    text = f"Well. {TWO}"
    for size in range(1, len(text)):
        splitter = CallSplitter(READER)
        told = "".join(splitter.feed(text[at : at + size]) for at in range(0, len(text), size)) + splitter.finish()
        assert (told.strip(), splitter.calls) == ("Well.", CALLS)


@contextmanager
def running(app: Any) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a server on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0)
    finally:
        server.should_exit = True
        thread.join()


def test_the_openai_client_gets_calls_and_gives_results() -> None:
    served = tools(TWO)
    with running(make_app(served)) as client:
        values: Any = {"model": "tiny", "tools": [WEATHER], "tool_choice": "auto"}
        message = client.chat.completions.create(messages=QUESTION, **values).choices[0].message
        assert message.tool_calls is not None
        assert [json.loads(call.function.arguments) for call in message.tool_calls] == [c.arguments for c in CALLS]

        results = [{"role": "tool", "tool_call_id": call.id, "content": "晴"} for call in message.tool_calls]
        client.chat.completions.create(messages=[*QUESTION, message, *results], **values)
        assert [turn["role"] for turn in served.engine.told[0]] == ["user", "assistant", "tool", "tool"]

        with client.chat.completions.stream(messages=QUESTION, **values) as stream:
            final = stream.get_final_completion().choices[0]
        assert final.finish_reason == "tool_calls"
        assert [call.function.name for call in final.message.tool_calls or ()] == ["weather", "weather"]
