"""What LLaMA-Factory's own converter and processor make of bad rows, and what we say of the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from orchestrator.data.conversation import Conversation, Message, write_rows
from orchestrator.data.reading import RowProblem, load, read
from orchestrator.lib.render import Renderer
from orchestrator.lib.training_kinds import TRAINING_KINDS

Row = Mapping[str, Any]
USER, BOT = {"from": "human", "value": "苹果发布新手机"}, {"from": "gpt", "value": "科技"}
ASK, TELL = {"role": "user", "content": "苹果发布新手机"}, {"role": "assistant", "content": "科技"}
CALL = {"from": "function_call", "value": '{"name": "f", "arguments": {"city": "北京"}}'}
TOOLS = '[{"name": "f", "description": "", "parameters": {}}]'
TOOL_CALL = {"function": {"name": "f", "arguments": '{"city": "北京"}'}}
COLUMNS = ("system", "tools", "images")


def chat(*turns: Any, **columns: Any) -> Row:
    return {"conversations": list(turns), **columns}


def messages(*turns: Any, **columns: Any) -> Row:
    return {"messages": list(turns), **columns}


def alpaca(instruction: Any = "苹果发布新手机", output: Any = "科技", **columns: Any) -> Row:
    return {"instruction": instruction, "input": "", "output": output, **columns}


def said(value: Any) -> Row:
    return chat(USER, {"from": "gpt", "value": value})


class Case(NamedTuple):
    """A row; our word for it (None: repaired); and LLaMA-Factory's: dropped, crash, or kept but not as it was meant."""

    form: str
    name: str
    row: Row
    kind: str | None
    fate: str


CASES = [
    Case("sharegpt", "assistant first", chat(BOT, USER), "role_order", "dropped"),
    Case("sharegpt", "two users in a row", chat(USER, USER, BOT, BOT), "role_order", "dropped"),
    Case("sharegpt", "ends with the user", chat(USER, BOT, USER), "odd_turns", "dropped"),
    Case("sharegpt", "only a question", chat(USER), "odd_turns", "dropped"),
    Case("sharegpt", "no turns", chat(), "no_turns", "dropped"),
    Case("sharegpt", "null turns", {"conversations": None}, "no_turns", "crash"),
    Case("sharegpt", "column missing", {"text": "x"}, "no_turns", "crash"),
    Case("sharegpt", "text instead of turns", {"conversations": "苹果"}, "no_turns", "crash"),
    Case("sharegpt", "turn is a text", chat("苹果", "科技"), "not_an_object", "crash"),
    Case("sharegpt", "unknown role", chat({"from": "narrator", "value": "x"}, BOT), "unknown_role", "dropped"),
    Case("sharegpt", "no role", chat({"value": "x"}, BOT), "unknown_role", "crash"),
    Case("sharegpt", "null answer", said(None), "empty_row", "crash"),
    Case("sharegpt", "integer answer", said(3), None, "crash"),
    Case("sharegpt", "boolean answer", said(True), None, "crash"),
    Case("sharegpt", "decimal answer", said(4.5), None, "crash"),
    Case("sharegpt", "list answer", said(["科技"]), "media", "crash"),
    Case("sharegpt", "object answer", said({"label": "科技"}), "not_text", "crash"),
    Case("sharegpt", "empty answer", said(""), "empty_row", "kept"),
    Case("sharegpt", "blank question", chat({"from": "human", "value": " \n"}, BOT), "empty_row", "kept"),
    Case("sharegpt", "integer question", chat({"from": "human", "value": 7}, BOT), None, "crash"),
    Case("sharegpt", "late system", chat(USER, {"from": "system", "value": "s"}, USER, BOT), "role_order", "dropped"),
    Case("sharegpt", "two systems", chat(*[{"from": "system", "value": "s"}] * 2, USER, BOT), "role_order", "dropped"),
    Case(
        "sharegpt", "system twice", chat({"from": "system", "value": "a"}, USER, BOT, system="b"), "two_systems", "kept"
    ),
    Case("sharegpt", "system is a number", chat(USER, BOT, system=5, tools=TOOLS), None, "crash"),
    Case("sharegpt", "observation answers", chat(USER, {"from": "observation", "value": "x"}), "role_order", "dropped"),
    Case("sharegpt", "call is no JSON", chat(USER, {**CALL, "value": "f(北京)"}), "bad_function_call", "crash"),
    Case("sharegpt", "call without name", chat(USER, {**CALL, "value": "{}"}), "bad_function_call", "crash"),
    Case("sharegpt", "tools are no JSON", chat(USER, BOT, tools="f(x)"), "bad_tools", "crash"),
    Case("sharegpt", "tools without name", chat(USER, BOT, tools='[{"n": 1}]'), "bad_tools", "kept"),
    Case("sharegpt", "image", chat(USER, BOT, images=["a.png"]), "media", "crash"),
    Case("openai", "assistant first", messages(TELL, ASK), "role_order", "dropped"),
    Case("openai", "unknown role", messages({"role": "critic", "content": "x"}, TELL), "unknown_role", "crash"),
    Case("openai", "null content", messages(ASK, {"role": "assistant", "content": None}), "empty_row", "crash"),
    Case("openai", "text parts", messages({**ASK, "content": [{"type": "text", "text": "苹果"}]}, TELL), None, "crash"),
    Case("openai", "image part", messages({**ASK, "content": [{"type": "image_url"}]}, TELL), "media", "crash"),
    Case("openai", "text beside a call", messages(ASK, {**TELL, "tool_calls": [TOOL_CALL]}), "tool_call_text", "kept"),
    Case(
        "openai", "arguments as text", messages(ASK, {**TELL, "content": None, "tool_calls": [TOOL_CALL]}), None, "kept"
    ),
    Case(
        "openai",
        "call without function",
        messages(ASK, {**TELL, "content": "", "tool_calls": [{}]}),
        "bad_function_call",
        "crash",
    ),
    Case("openai", "tool without call", messages(ASK, {"role": "tool", "content": "x"}, TELL), "role_order", "dropped"),
    Case(
        "openai",
        "tool has the last word",
        messages(ASK, {**TELL, "content": None, "tool_calls": [TOOL_CALL]}, {"role": "tool", "content": "x"}),
        "odd_turns",
        "kept",
    ),
    Case("openai", "reasoning beside", messages(ASK, {**TELL, "reasoning_content": "嗯"}), "reasoning_text", "kept"),
    Case("alpaca", "null output", alpaca(output=None), "empty_row", "dropped"),
    Case("alpaca", "integer output", alpaca(output=3), None, "dropped"),
    Case("alpaca", "boolean output", alpaca(output=False), None, "dropped"),
    Case("alpaca", "list output", alpaca(output=["科技"]), "not_text", "dropped"),
    Case("alpaca", "empty output", alpaca(output=""), "empty_row", "kept"),
    Case("alpaca", "nothing asked", alpaca(instruction=""), "empty_row", "kept"),
    Case("alpaca", "integer instruction", alpaca(instruction=7), None, "crash"),
    Case("alpaca", "history is a text", alpaca(history="你好"), "bad_history", "kept"),
    Case("alpaca", "history of triples", alpaca(history=[["a", "b", "c"]]), "bad_history", "crash"),
    Case("alpaca", "history without answer", alpaca(history=[["a", None]]), "empty_row", "crash"),
]


class Characters:
    """A tokenizer whose tokens are code points, so that ids can be read back."""

    eos_token_id, pad_token_id, eos_token = 0, 0, "\x00"

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(character) for character in text]

    def convert_tokens_to_ids(self, token: str) -> int:
        return ord(token[0])


@pytest.fixture(scope="module")
def fate() -> Callable[[Row, Any], tuple[str, str]]:
    """(row, dataset attributes) → what LLaMA-Factory does with it, and the text that it would train on."""
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import TEMPLATES

    arguments = SimpleNamespace(cutoff_len=4096, train_on_prompt=False, mask_history=False, media_dir=".")
    processor = SupervisedDatasetProcessor(TEMPLATES["qwen"], Characters(), None, arguments)

    def convert(row: Row, attributes: Any) -> tuple[str, str]:
        try:
            converter = get_dataset_converter(attributes.formatting, attributes, arguments)
            batch = {key: [value] for key, value in converter({**dict.fromkeys(COLUMNS), **row}).items()}
            ids = processor.preprocess_dataset(batch)["input_ids"]
        except Exception:
            return "crash", ""
        return ("kept", "".join(map(chr, ids[0]))) if ids else ("dropped", "")

    return convert


def attributes(form: str) -> Any:
    """Dataset attributes as a careful user of LLaMA-Factory sets them for that format."""
    from llamafactory.data.parser import DatasetAttr

    found = DatasetAttr(
        "file", "x", formatting=form, system="system", tools="tools", images="images", history="history"
    )
    if form == "openai":
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        for name, value in {**tags, "messages": "messages", "observation_tag": "tool"}.items():
            setattr(found, name, value)
    return found


def ours(tmp_path: Path, row: Row, good: Row) -> Conversation | RowProblem:
    """What we make of the row when it is the second of a file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in (good, row)), encoding="utf-8")
    first, second = read(path)
    assert isinstance(first, Conversation)
    return second


GOOD = {"sharegpt": chat(USER, BOT), "openai": messages(ASK, TELL), "alpaca": alpaca(history=[])}


def test_there_are_forty_kinds() -> None:
    assert len({(case.form, case.name) for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.form}, {case.name}")
def test_a_bad_row_is_named_or_repaired(case: Case, fate: Any, tmp_path: Path) -> None:
    assert fate({"history": None, **case.row}, attributes(case.form))[0] == case.fate
    verdict = ours(tmp_path, case.row, GOOD[case.form])
    if case.kind is not None:
        assert isinstance(verdict, RowProblem)
        assert (verdict.kind, verdict.row) == (case.kind, 2)
    else:
        assert isinstance(verdict, Conversation)
        assert_survives(verdict, fate, tmp_path)


def register(folder: Path, kind: str) -> None:
    """The dataset_info.json of a run."""
    (folder / "dataset_info.json").write_text(Renderer(folder)("dataset_info.json.j2", kind=kind, kinds=TRAINING_KINDS))


def assert_survives(conversation: Conversation, fate: Any, tmp_path: Path) -> None:
    """Written by us, LLaMA-Factory keeps the row with its question and its answer."""
    from llamafactory.data.parser import get_dataset_list

    write_rows(tmp_path / "train.json", [conversation])
    register(tmp_path, "sft")
    (row,) = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    (found,) = get_dataset_list(["train"], str(tmp_path))
    kept, text = fate(row, found)
    assert kept == "kept"
    assert conversation.prompt in text
    expected = "<tool_call>\n" if conversation.messages[-1].role == "function_call" else conversation.answer
    assert text.index(expected) > text.index(conversation.prompt)


@pytest.mark.parametrize("form", GOOD)
def test_a_good_row_is_kept_by_both(form: str, fate: Any, tmp_path: Path) -> None:
    assert fate({"history": None, **GOOD[form]}, attributes(form))[0] == "kept"
    conversation = ours(tmp_path, GOOD[form], GOOD[form])
    assert isinstance(conversation, Conversation)
    assert_survives(conversation, fate, tmp_path)


def test_arguments_that_are_text_are_not_quoted_twice(fate: Any, tmp_path: Path) -> None:
    row = messages(ASK, {**TELL, "content": None, "tool_calls": [TOOL_CALL]})
    assert r"\"city\"" in fate(row, attributes("openai"))[1]
    conversation = ours(tmp_path, row, GOOD["openai"])
    assert isinstance(conversation, Conversation)
    assert json.loads(conversation.answer) == [{"name": "f", "arguments": {"city": "北京"}}]


KINDS = [
    ("dpo", {"instruction": "问", "chosen": "好", "rejected": "坏"}, ("问", "好", "坏")),
    ("kto", {"prompt": "问", "completion": "好", "label": False}, ("问", "", "好")),
]


@pytest.mark.parametrize(("kind", "row", "expected"), KINDS)
def test_pairs_and_thumbs_reach_llamafactory(kind: Any, row: Row, expected: tuple[str, ...], tmp_path: Path) -> None:
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list

    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    write_rows(tmp_path / "train.json", load(path, kind).conversations, kind)
    register(tmp_path, kind)
    (found,) = get_dataset_list(["train"], str(tmp_path))
    (written,) = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    converted = get_dataset_converter("sharegpt", found, SimpleNamespace(media_dir="."))(written)
    texts = [turn["content"] for turn in converted["_prompt"] + converted["_response"]]
    assert tuple(texts) == expected


def test_a_mixed_file_loads_with_every_row(tmp_path: Path, fate: Any) -> None:
    """Rows with and without system, tools and calls, through `datasets` as LLaMA-Factory loads them."""
    from llamafactory.data.parser import get_dataset_list

    from datasets import load_dataset

    rows = [chat(USER, BOT), chat(USER, BOT, system="s"), chat(USER, CALL, tools=TOOLS), said(3)] * 5
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    loaded = load(tmp_path / "rows.json")
    assert loaded.problems == ()
    write_rows(tmp_path / "train.json", loaded.conversations)
    register(tmp_path, "sft")
    dataset = load_dataset(
        "json", data_files=str(tmp_path / "train.json"), split="train", cache_dir=str(tmp_path / "c")
    )
    (found,) = get_dataset_list(["train"], str(tmp_path))
    assert [fate(row, found)[0] for row in dataset] == ["kept"] * 20


def test_plain_texts_reach_llamafactory(tmp_path: Path) -> None:
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list

    (tmp_path / "rows.jsonl").write_text('{"text": "春眠不觉晓"}\n', encoding="utf-8")
    write_rows(tmp_path / "train.json", load(tmp_path / "rows.jsonl", "pt").conversations, "pt")
    register(tmp_path, "pt")
    (found,) = get_dataset_list(["train"], str(tmp_path))
    (row,) = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    converted = get_dataset_converter(found.formatting, found, SimpleNamespace(media_dir="."))(row)
    assert converted["_prompt"] == [{"role": "user", "content": "春眠不觉晓"}]


def test_the_tokens_counted_are_those_of_training(builtin_model: Path) -> None:
    from llamafactory.data.template import TEMPLATES

    from orchestrator.chat_template.encode import load_tokenizer
    from orchestrator.data.checks.tokens import token_counter

    count, tokenizer = token_counter(builtin_model, "chatml", thinking=False), load_tokenizer(builtin_model)
    rows = [
        Conversation((Message("user", f"新闻分类：第{n}天 day {n}"), Message("assistant", "科技"))) for n in range(9)
    ]
    for row in [*rows, *(replace(row, system="你是编辑。") for row in rows)]:
        turns = [{"role": message.role, "content": message.content} for message in row.messages]
        prompt, answer = TEMPLATES["chatml"].encode_oneturn(tokenizer, turns, row.system)
        assert count(row) == len(prompt) + len(answer)
        pair = replace(row, messages=row.messages[:1], chosen="短", rejected="科技")
        assert count(pair) == count(replace(pair, chosen="科技", rejected="短")) == count(row)
