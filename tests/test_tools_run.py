"""A handful of the shipped rows with tools, from prepare to the gate and to a client, on the tiny model.

The limit of tokens ends the first row's call where it ends, and cuts the longer one of the third row off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from orchestrator.evaluation.calls import CallReader, from_json, same
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.runs.store import Run
from orchestrator.serving import serve

LIMIT, CALLS = 33, CallReader("qwen")


def test_a_gguf_is_asked_the_tokens_of_training_and_makes_calls(tools_run: Run) -> None:
    parity = read_json(tools_run.folder / "evaluation/gguf-f16.parity.json")
    figures = tools_run.record["metrics"]["gguf-f16"]
    rows = read_json_lines(tools_run.folder / layout.predictions("gguf-f16"))

    assert parity["rows"] == parity["compared"] == parity["equal_prompts"] == 4
    assert figures["n"] == 4 and {"call_accuracy", "argument_f1", "spurious_calls"} <= set(figures)
    assert rows[0]["prediction"] == rows[0]["label"] and len(CALLS.read(rows[0]["prediction"])) == 1
    assert CALLS.is_broken(rows[2]["prediction"])


@pytest.fixture(scope="module")
def client(tools_run: Run) -> Iterator[openai.OpenAI]:
    with serve.running(tools_run, "f16", serve.where(port=0, context=1024)) as (served, _):
        yield openai.OpenAI(base_url=served.url, api_key=served.key, max_retries=0)


def asked(client: openai.OpenAI, row: dict[str, Any], limit: int) -> Any:
    return client.chat.completions.create(
        model="tiny", messages=row["messages"], tools=row["tools"], temperature=0, max_tokens=limit
    )


def test_the_openai_client_gets_the_calls_that_were_measured(tools_run: Run, client: openai.OpenAI) -> None:
    measured = read_json_lines(tools_run.folder / layout.predictions("gguf-f16"))
    for row, answer in zip(read_json_lines(tools_run.folder / layout.PROMPTS), measured, strict=True):
        got = asked(client, row, LIMIT)
        (choice,) = got.choices
        made = [call.function for call in choice.message.tool_calls or ()]
        calls = from_json([{"name": call.name, "arguments": json.loads(call.arguments)} for call in made]) or ()
        expected = CALLS.read(answer["prediction"])
        assert same(calls, expected)
        assert (choice.finish_reason == "tool_calls") == bool(expected)
        assert got.usage.prompt_tokens == len(row["ids"])


def test_a_call_that_the_limit_cuts_off_is_text_and_says_so(tools_run: Run, client: openai.OpenAI) -> None:
    row = read_json_lines(tools_run.folder / layout.PROMPTS)[0]
    (choice,) = asked(client, row, 9).choices

    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert "<tool_call>" in choice.message.content and CALLS.is_broken(choice.message.content)
