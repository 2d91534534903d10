"""Conversations with tools: counted as training sees them, asked as training sees them, served as they were trained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.jinja import jinja_template, render_messages
from orchestrator.chat_template.registry import definition, tool_definition
from orchestrator.chat_template.tool_cases import tool_conversations
from orchestrator.chat_template.turns import special_tokens
from orchestrator.data import assemble
from orchestrator.data.canonical import as_trained, canonical, messages, offered
from orchestrator.data.checks import Mode, check_data
from orchestrator.data.checks.tokens import token_counter
from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.lengths import length
from orchestrator.evaluation.gate import judge_parity
from orchestrator.evaluation.parity import Asked, parity
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import link, read_json, read_json_lines, write_json
from orchestrator.serving import bundle
from orchestrator.stages import prepare
from orchestrator.stages.modelfile import Modelfile
from orchestrator.stages.template import Template
from tests.conftest import WORDS

TEMPLATE = "qwen3"
TOOLS = json.dumps(
    [{"name": "天气", "description": "一个城市的天气 " * 30, "parameters": {"type": "object", "properties": {}}}],
    ensure_ascii=False,
)
CALL = json.dumps({"name": "天气", "arguments": {"city": "北京"}}, ensure_ascii=False)
CALLED = (Message("user", "北京的天气？"), Message("function_call", CALL))
TOLD = (*CALLED, Message("observation", '{"sky": "晴"}'), Message("assistant", "晴天。"))
PLAIN = (Message("user", "你好"), Message("assistant", "你好！"))


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder(TEMPLATE, load_tokenizer(tiny_model), thinking=False)


def seen_in_training(tokenizer: Any, row: Conversation) -> int:
    """What LLaMA-Factory's own processor makes of a row, uncut."""
    from llamafactory.data.processor import SupervisedDatasetProcessor

    from orchestrator.chat_template.encode import _template

    arguments = SimpleNamespace(cutoff_len=10**6, train_on_prompt=False, mask_history=False)
    processor = SupervisedDatasetProcessor(_template(TEMPLATE, tokenizer, False), tokenizer, None, arguments)
    names = {"function_call": "function"}
    turns = [{"role": names.get(turn.role, turn.role), "content": turn.content} for turn in row.messages]
    ids, _ = processor._encode_data_example(turns[:-1], turns[-1:], row.system or None, row.tools or None, [], [], [])
    return len(ids)


@pytest.mark.parametrize("messages", [CALLED, TOLD, PLAIN], ids=["called", "told", "only offered"])
@pytest.mark.parametrize("system", ["", "你是助手。"])
def test_a_row_with_tools_is_as_long_as_training_sees_it(
    tiny_model: Path, encoder: Encoder, messages: tuple[Message, ...], system: str
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    row = Conversation(messages, system=system, tools=TOOLS)
    counted = length(encoder, tokenizer, row)
    assert counted == seen_in_training(tokenizer, row) > 100
    assert token_counter(tiny_model, TEMPLATE, False)(row) > 100  # `check` knows it roughly, without LLaMA-Factory


def configured(folder: Path, model: Path, **changes: Any) -> prepare.Prepare:
    """A prepare stage over rows of which some offer tools, and some call them."""
    names = {"user": "human", "assistant": "gpt"}

    def row(number: int, messages: tuple[Message, ...], tools: str) -> dict[str, Any]:
        turns = [{"from": names.get(turn.role, turn.role), "value": turn.content} for turn in messages]
        turns[0]["value"] += str(number)
        return {"conversations": turns, "tools": tools}

    kinds = [(CALLED, TOOLS), (PLAIN, ""), (PLAIN, TOOLS)]
    for name, first in (("train", 0), ("eval", 50)):
        write_json(folder / f"{name}.json", [row(first + n, *kinds[n % 3]) for n in range(12)])
    values = {
        "base": str(model), "template": TEMPLATE, "thinking": False, "trust_remote_code": False,
        "project": str(folder), "kind": "sft",
        "cutoff_len": 1024, "task": "generation", "train": "train.json", "eval": "eval.json",
        "accept": ["leakage_near", "duplicate_near"],
    }  # fmt: skip
    from orchestrator.spec.sections import Data

    data = Data(train="train.json", eval="eval.json").model_dump(mode="json")
    return prepare.Prepare(**{**data, **values, **changes})


def test_rows_with_tools_are_asked_in_the_tokens_of_training(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, tiny_model).run()
    asked = read_json_lines(Path(layout.PROMPTS))
    assert read_json(Path(layout.SERVING))["tools"] is True
    assert [len(record.get("tools", ())) for record in asked] == [1, 0, 1] * 4
    assert asked[0]["label"] == f"<tool_call>\n{CALL}\n</tool_call>"
    trained = read_json(Path(layout.EVAL_ROWS))
    assert json.loads(trained[0]["tools"])[0]["function"]["parameters"] == {"type": "object", "properties": {}}
    tokenizer = load_tokenizer(tiny_model)
    for record, row in zip(asked, trained, strict=True):
        assert record["ids"] == prompt_in_training(tokenizer, row)
        assert tokenizer.encode(record["text"], add_special_tokens=False) == record["ids"]
    with pytest.raises(InputError, match="16 of 24 rows are longer than cutoff_len 100; the longest has"):
        configured(tmp_path, tiny_model, cutoff_len=100).run()


def test_a_run_says_of_thoughts_what_data_check_says_and_trains_them_as_the_template_knows_them(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = configured(tmp_path, tiny_model, thinking=True)
    answers = ("<think>想</think>好", "<think>\n想\n</think>\n\n好", "好")
    for name, first in (("train", 0), ("eval", 50)):
        rows = [thinking_row(first + n, answers[n % 3]) for n in range(12)]
        write_json(tmp_path / f"{name}.json", rows)
    stage.run()

    said = read_json(Path(layout.FINDINGS))["findings"]
    assert said == [found.to_json() for found in assemble.check(stage.rows())]
    messages = {found["kind"]: found["message"] for found in said}
    assert messages["thoughts"].startswith("8 of 12 rows have a thought in an answer, 4 have none; with model.thinking")
    assert messages["empty_thoughts"].startswith("4 of 12 rows teach an empty thought")
    trained = [row["conversations"][1]["value"] for row in read_json(Path(layout.TRAIN_ROWS))]
    assert trained[:3] == [answers[1], answers[1], answers[2]]
    assert [record["label"] for record in read_json_lines(Path(layout.PROMPTS))][:2] == [answers[1], answers[1]]


def thinking_row(number: int, answer: str) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": f"问题{number}：{WORDS.split()[number % 50]}？"},
        {"from": "gpt", "value": answer},
    ]
    return {"conversations": turns}


def prompt_in_training(tokenizer: Any, row: dict[str, Any]) -> list[int]:
    """LLaMA-Factory's own prompt of a row as it was written for training."""
    from orchestrator.chat_template.encode import _template

    names = {"human": "user", "gpt": "assistant", "function_call": "function"}
    turns = [{"role": names.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in row["conversations"]]
    of = _template(TEMPLATE, tokenizer, False)
    return list(of.encode_oneturn(tokenizer, turns, row["system"] or None, row["tools"] or None)[0])


def test_what_was_trained_with_tools_is_served_without_a_template_of_ollamas(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, tiny_model).run()
    link(tiny_model / "tokenizer.json", Path(layout.AS_MERGED) / "tokenizer.json")
    for name in ("tokenizer_config.json", "config.json"):
        link(tiny_model / name, Path(layout.AS_MERGED) / name)
    Template("toys", "builtin:x", None, "train.json").run()
    jinja = (Path(layout.MERGED) / "chat_template.jinja").read_text(encoding="utf-8")
    tokens = special_tokens(tiny_model)
    for record in read_json_lines(Path(layout.PROMPTS)):
        assert render_messages(jinja, record["messages"], tokens, tools=record.get("tools", ())) == record["text"]
    Modelfile(str(tmp_path), "toys", {"f16": "toys-f16.gguf"}, "toys-f16.gguf", None, {"temperature": 0}).run()
    assert bundle.read(Path(layout.MODELFILE)).template is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [("gemma4", "how a call ends"), ("youtu", "how a call ends"), ("glm4", "cannot read calls of the form glm4")],
)
def test_templates_that_cannot_serve_tools_are_refused_for_such_rows_alone(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, template: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{reason}.* \(train.json, row 1\)"):
        configured(tmp_path, tiny_model, template=template).run()


def test_a_byte_more_in_a_tool_fails_the_gate(tiny_model: Path) -> None:
    tokenizer, tokens = load_tokenizer(tiny_model), special_tokens(tiny_model)
    [(messages, tools), *_] = tool_conversations(tool_definition(TEMPLATE), definition(TEMPLATE).thought_words)
    ids = Encoder(TEMPLATE, load_tokenizer(tiny_model), thinking=False).prompt_ids(messages, tools)
    jinja = jinja_template(definition(TEMPLATE), tokens, False, tool_definition(TEMPLATE))

    def gate(template: str) -> list[str]:
        text = render_messages(template, messages, tokens, tools=tools)
        asked = Asked("1", ids, tokenizer.encode(text, add_special_tokens=False), False, [1], False)
        failures = judge_parity("gguf-f16", parity([asked]), 100.0, {})
        return [failure.what for failure in failures]

    assert gate(jinja) == []
    changed = jinja.replace("{{ '\\n' + (tool | tojson) }}", "{{ '\\n ' + (tool | tojson) }}")
    assert len(changed) == len(jinja) + 1
    assert gate(changed) == ["parity"]


@pytest.mark.parametrize(
    ("template", "kind", "said"),
    [
        (
            "gemma4",
            "tools_not_served",
            "2 of 3 rows have tools, and template gemma4 cannot be served with tools: training never shows how a call",
        ),
        (
            "glm4",
            "tools_not_trained",
            "1 of 3 rows has tools or calls that template glm4 cannot train: the tool format",
        ),
        ("mistral", "tools_not_trained", "1 of 3 rows .* no text or thought beside a call"),
        ("lfm2", "tools_not_trained", "1 of 3 rows .* nobody could read .* in what training makes of it"),
        ("default", "tools_not_trained", r"2 of 3 rows .* nobody could read \[{\"name\": \"天气\""),
        (
            "smollm2",
            "tools_not_trained",
            "1 of 3 rows .* the values of an enum as texts, and those of weather.n are none",
        ),
        ("qwen", None, ""),
    ],
)
def test_check_names_rows_whose_tools_a_template_cannot_serve(template: str, kind: str | None, said: str) -> None:
    number = {"properties": {"n": {"enum": [1, 2]}}}
    quoted = json.dumps({"name": "天气", "arguments": {"city": '“北京” or "Peking"'}}, ensure_ascii=False)
    odd = {"glm4": f"[{CALL}, {CALL}]", "lfm2": quoted}
    two = odd.get(template, f"<think>\n好\n</think>\n\n{CALL}")
    tools = json.dumps([{"name": "天气", "parameters": number if template == "smollm2" else {}}], ensure_ascii=False)
    name = "weather" if template == "smollm2" else "天气"  # the form of smollm2 knows names in ASCII alone
    texts = [text.replace("天气", name) for text in (CALL, TOOLS, two, tools)]
    rows = [
        Conversation((Message("user", "北京的天气？"), Message("function_call", texts[0])), tools=texts[1], row=1),
        Conversation((Message("user", "上海的天气？"), Message("function_call", texts[2])), tools=texts[3], row=2),
        Conversation(PLAIN, row=3),
    ]
    found = {
        each.kind: each for each in check_data(rows, mode=Mode(template, False, False)) if each.severity == "error"
    }
    assert [name for name in found if name.startswith("tools")] == ([kind] if kind else [])
    if kind:
        assert re.match(said, found[kind].message)
        assert kind != "tools_not_served" or "choose gemma4+qwen, the same with tools and" in found[kind].message
        with pytest.raises(InputError, match=r"row [12]: .* cannot train it|cannot be served") as refused:
            for row in rows:
                prepare._require_servable(
                    SimpleNamespace(template=template, thinking=False), [canonical(row, template)]
                )
        assert refused.value.hint


def test_the_day_of_training_stands_in_no_prompt(tiny_model: Path) -> None:
    from orchestrator.chat_template.encode import _template

    row = as_trained(told := canonical(Conversation(TOLD, system="简短。", tools=TOOLS), "llama3"), "llama3")
    assert row.tools == ""
    assert row.system.startswith("简短。Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nYou have")
    tokenizer = load_tokenizer(tiny_model)
    of = _template("llama3", tokenizer, False)
    theirs = of.format_tools.apply(content=told.tools)[0]
    assert re.sub("Today Date: .*", "", theirs) == re.sub("Today Date: .*", "", row.system.removeprefix("简短。"))
    turns = [
        {"role": {"function_call": "function"}.get(turn.role, turn.role), "content": turn.content} for turn in TOLD
    ]
    asked = replace(told, messages=TOLD[:-1])
    ids = Encoder("llama3", tokenizer, False).prompt_ids(list(messages(asked, "llama3")), offered(told))
    assert ids == list(of.encode_oneturn(tokenizer, turns, row.system, None)[0])
    assert as_trained(canonical(Conversation(PLAIN), "llama3"), "llama3") == Conversation(PLAIN)
