"""A handful of the shipped rows with tools, from prepare to the gate and to a client, on the tiny model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from orchestrator.evaluation.calls import from_json, in_json, same
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.runs.store import Run
from orchestrator.serving import serve


def test_a_gguf_is_asked_the_tokens_of_training_and_makes_the_calls_that_were_learnt(tools_run: Run) -> None:
    parity = read_json(tools_run.folder / "evaluation/gguf-f16.parity.json")
    figures = tools_run.record["metrics"]["gguf-f16"]

    assert parity["rows"] == parity["compared"] == parity["equal_prompts"] == 6
    assert (figures["call_accuracy"]["value"], figures["spurious_calls"]["value"]) == (100.0, 0.0)
    rows = read_json_lines(tools_run.folder / layout.predictions("gguf-f16"))
    assert [len(row["calls"]) for row in rows] == [1, 1, 1, 0, 1, 0]
    assert rows[2]["calls"] == [{"name": "translate", "arguments": {"text": "生日快乐", "language": "德语"}}]


@pytest.fixture(scope="module")
def client(tools_run: Run) -> Any:
    with serve.running(tools_run, "f16", serve.where(port=0, context=1024)) as (served, _):
        yield openai.OpenAI(base_url=f"{served.url}", api_key=served.key, max_retries=0)


def test_the_openai_client_gets_the_calls_of_a_real_model(tools_run: Run, client: openai.OpenAI) -> None:
    asked = read_json_lines(tools_run.folder / layout.PROMPTS)
    for row in asked:
        answer = client.chat.completions.create(
            model="tiny", messages=row["messages"], tools=row["tools"], temperature=0, max_tokens=64
        )
        (choice,) = answer.choices
        made = [call.function for call in choice.message.tool_calls or ()]
        calls = from_json([{"name": call.name, "arguments": json.loads(call.arguments)} for call in made])
        expected = in_json(row["label"].removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        assert same(calls or (), expected)
        assert choice.finish_reason == ("tool_calls" if expected else "stop")
        assert choice.message.content == (None if expected else row["label"])
        assert answer.usage is not None and answer.usage.prompt_tokens == len(row["ids"])


def test_a_call_that_the_limit_cuts_off_is_text_and_says_so(tools_run: Run, client: openai.OpenAI) -> None:
    row = read_json_lines(tools_run.folder / layout.PROMPTS)[0]
    answer = client.chat.completions.create(
        model="tiny", messages=row["messages"], tools=row["tools"], temperature=0, max_tokens=9
    )

    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert row["label"].startswith(choice.message.content) and "<tool_call>" in choice.message.content
