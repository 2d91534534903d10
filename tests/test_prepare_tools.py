"""Conversations with tools: counted as training sees them, and never said to be proven."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.data.checks.tokens import token_counter
from orchestrator.data.conversation import Conversation, Message
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json_lines, write_json
from orchestrator.stages import prepare

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
    counted = prepare.length(encoder, tokenizer, row)
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


def test_what_offers_or_calls_tools_is_not_compared(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, tiny_model).run()
    asked = read_json_lines(Path(layout.PROMPTS))
    assert [record["ids"] is None for record in asked] == [True, False, True] * 4
    with pytest.raises(InputError, match="16 of 24 rows are longer than cutoff_len 100; the longest has"):
        configured(tmp_path, tiny_model, cutoff_len=100).run()
