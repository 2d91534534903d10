"""Rows with tools: what is refused, by file and row; what canonical form drops; ReAct texts; thoughts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.data import data
from orchestrator.data.assemble import Wanted, assemble
from orchestrator.data.checks import Mode, check_data
from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.import_ import Recipe, import_file
from orchestrator.data.reading import load, read
from orchestrator.lib.errors import InputError
from orchestrator.spec.sections import Data

ASK = {"from": "human", "value": "北京天气"}
TELL = {"from": "gpt", "value": "晴"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": CITY}}


def call(name: str, arguments: Any) -> dict[str, str]:
    return {"from": "function_call", "value": json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)}


def row(*turns: Any, tools: Any = (WEATHER,)) -> dict[str, Any]:
    given = tools if isinstance(tools, str) else json.dumps(list(tools), ensure_ascii=False)
    return {"conversations": list(turns), "tools": given}


def problems(folder: Path, *rows: dict[str, Any]) -> list[tuple[int, str, str]]:
    file = folder / "rows.json"
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return [(problem.row, problem.kind, problem.message) for problem in load(file).problems]


NO_SCHEMA = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "text"}}}},
}
DANGLING = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}}
REFUSED = [
    (row(ASK, call("weather", {"town": "北京"})), "bad_arguments", "weather: 'city' is a required property"),
    (row(ASK, call("weather", {"city": "北京", "days": "two"})), "bad_arguments", "weather.days: 'two' is not of type"),
    (row(ASK, call("weather", ["北京"])), "bad_function_call", "must be an object"),
    (row(ASK, call("wether", {"city": "北京"})), "undeclared_tool", "calls 'wether', but its tools are weather"),
    (row(ASK, TELL, tools=[NO_SCHEMA]), "bad_tools", "f: parameters are no JSON schema"),
    (row(ASK, TELL, tools=[{"name": "f", "parameters": [1]}]), "bad_tools", "f: parameters must be an object"),
    (row(ASK, TELL, tools=[WEATHER, WEATHER]), "bad_tools", "two tools are called 'weather'"),
    (row(ASK, call("f", {"a": 1}), tools=[DANGLING]), "bad_tools", "refers to '/$defs/gone'"),
    (row(ASK, TELL, tools="weather"), "bad_tools", "JSON list"),
    (row(ASK, TELL, {"from": "observation", "value": "1"}, TELL), "result_without_call", "turn 3 is a tool's result"),
    (row(ASK, {"from": "function_call", "value": "[]"}), "bad_function_call", "holds no call"),
]


@pytest.mark.parametrize(("bad", "kind", "says"), REFUSED, ids=[kind for _, kind, _ in REFUSED])
def test_a_row_that_no_server_could_answer_so_is_named(tmp_path: Path, bad: Any, kind: str, says: str) -> None:
    ((number, found, message),) = problems(tmp_path, row(ASK, call("weather", {"city": "北京"})), bad)

    assert (number, found) == (2, kind)
    assert says in message


def test_fifty_tools_nested_quotes_and_chinese_are_no_trouble(tmp_path: Path) -> None:
    many = [{"name": f"tool_{n}", "description": "查", "parameters": CITY} for n in range(50)]
    quoted = call("tool_49", {"city": "He said \"他说：{'你好'}\" \\ \n"})

    assert problems(tmp_path, row(ASK, quoted, {"from": "observation", "value": "{}"}, TELL, tools=many)) == []


def test_openai_files_with_several_calls_and_results(tmp_path: Path) -> None:
    calls = [{"id": str(n), "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": c})}}
             for n, c in enumerate(("北京", "上海"))]  # fmt: skip
    results = [{"role": "tool", "tool_call_id": str(n), "content": c} for n, c in enumerate("晴雨")]
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    file = tmp_path / "rows.jsonl"
    said = {"messages": [*turns, {"role": "assistant", "content": "晴，雨"}], "tools": [WEATHER]}
    file.write_text("\n".join([json.dumps(said)] * 4), encoding="utf-8")

    done = import_file(file, tmp_path / "out", Recipe(fraction=0))

    assert (done.calls.rows, done.calls.inferred) == (4, ())
    assert "task: tools" in done.snippet()
    (first, *_) = load(tmp_path / "out/train.json").conversations
    assert [turn.role for turn in first.messages] == ["user", "function_call", "observation", "assistant"]
    assert [entry["arguments"]["city"] for entry in json.loads(first.messages[1].content)] == ["北京", "上海"]


REACT = """Thought: I need the weather.
Action: weather
Action Input: {"city": "北京", "days": 2}
Observation: 晴
Thought: Now I know.
Final Answer: 北京晴。"""


def test_react_trajectories_become_calls(tmp_path: Path) -> None:
    file = tmp_path / "react.json"
    steps = [
        {"from": "human", "value": "上海？"},
        {"from": "gpt", "value": 'Action: weather\nAction Input: {"city": "上海"}'},
        {"from": "human", "value": "Observation: 雨"},
        {"from": "gpt", "value": "Final Answer: 上海雨。"},
    ]
    rows = [{"conversations": [ASK, {"from": "gpt", "value": REACT}]}, {"conversations": steps}]
    rows += [
        {"conversations": [{"from": "human", "value": "f?"}, {"from": "gpt", "value": "Action: f\nAction Input: go"}]}
    ]
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    done = import_file(file, tmp_path / "out", Recipe(fraction=0))

    assert (done.left_out, done.calls.rows, done.calls.inferred) == ((), 3, ("f", "weather"))
    one, two, three = load(tmp_path / "out/train.json").conversations
    assert [turn.role for turn in one.messages] == ["user", "function_call", "observation", "assistant"]
    assert one.messages[1].content.startswith("<think>\nI need the weather.\n</think>\n\n{")
    assert two.messages[2] == Message("observation", "雨")
    assert json.loads(three.messages[1].content) == {"name": "f", "arguments": {"input": "go"}}
    assert json.loads(one.tools)[1]["function"]["parameters"] == {
        "type": "object",
        "required": ["city"],
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    }


def test_react_is_text_unless_it_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "react.json"
    file.write_text(json.dumps([{"conversations": [ASK, {"from": "gpt", "value": REACT}]}]), encoding="utf-8")

    (found,) = read(file)

    assert isinstance(found, Conversation) and found.answer == REACT


def test_data_check_says_what_canonical_form_drops_and_names_the_row(tmp_path: Path) -> None:
    strict = json.loads(json.dumps(WEATHER))
    strict["function"]["parameters"] |= {"additionalProperties": False}
    strict["function"]["parameters"]["properties"]["days"]["default"] = 1
    good = [
        row({"from": "human", "value": f"第{n}座城市？"}, call("weather", {"city": "北京"}), tools=[strict])
        for n in range(12)
    ]
    bad = row({"from": "human", "value": "坏"}, call("weather", {}))
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([*good, bad], ensure_ascii=False), encoding="utf-8")

    result = CliRunner().invoke(data, ["check", str(file), "--json"])

    found = {each["kind"]: each for each in json.loads(result.stdout)["findings"]}
    assert isinstance(result.exception, InputError)
    assert found["bad_arguments"]["rows"] == [{"file": str(file), "row": 13}]
    assert "weather.additionalProperties (12 rows), weather.days.default (12 rows)" in found["tools_reduced"]["message"]


def thinking(share: int, mode: Mode | None) -> dict[str, tuple[str, str]]:
    answers = [f"<think>\n因为{n}\n</think>\n\n好" if n < share else "好" for n in range(12)]
    rows = [
        Conversation((Message("user", f"问{n}"), Message("assistant", text)), row=n + 1)
        for n, text in enumerate(answers)
    ]
    return {each.kind: (each.severity, each.message) for each in check_data(rows, mode=mode)}


def test_thoughts_are_counted_and_empty_ones_warned_of() -> None:
    severity, message = thinking(5, Mode("qwen3", True, True))["empty_thoughts"]

    assert (severity, message.split(":")[0]) == ("warning", "7 of 12 rows teach an empty thought")
    assert thinking(5, None)["thoughts"][1] == "5 of 12 rows have a thought in an answer, 7 have none"
    assert "empty_thoughts" in thinking(0, Mode("qwen3", True, True))
    assert "takes them out" in thinking(5, Mode("qwen3", True, False))["thoughts"][1]
    assert "as text" in thinking(12, Mode("qwen", False, True))["thoughts"][1]
    assert not {"thoughts", "empty_thoughts"} & set(thinking(0, Mode("qwen3", True, False)))


def test_each_answer_without_a_thought_teaches_an_empty_one() -> None:
    """LLaMA-Factory adds it answer by answer; a text of a pretraining answers nothing."""
    thought, none = Message("assistant", "<think>\n想\n</think>\n\n好"), Message("assistant", "好")
    rows = [Conversation((Message("user", f"问{n}"), none, Message("user", "再问"), thought), row=n) for n in range(12)]
    mode = Mode.of("qwen3", thinking=True)

    found = {each.kind: each.message for each in check_data(rows, mode=mode)}

    assert mode == Mode("qwen3", True, True)
    assert found["thoughts"].startswith("12 of 12 rows have a thought in an answer, 0 have none")
    assert found["empty_thoughts"].startswith("12 of 12 rows teach an empty thought")
    texts = [Conversation((Message("user", f"文{n}"),), row=n) for n in range(12)]
    assert not {"thoughts", "empty_thoughts"} & {each.kind for each in check_data(texts, mode=mode)}


def test_every_answer_of_a_held_out_conversation_may_be_asked_for(tmp_path: Path) -> None:
    turns = [ASK, call("weather", {"city": "北京"}), {"from": "observation", "value": "晴"}, TELL]
    train = [row({"from": "human", "value": f"第{n}座城市怎么样？"}, TELL) for n in range(12)]
    for name, rows in (("train.json", train), ("eval.json", [row(*turns)])):
        (tmp_path / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    data = Data(train="train.json", eval="eval.json")

    last, each = (assemble(Wanted(tmp_path, data, every_answer=all_)).eval for all_ in (False, True))

    assert [[turn.role for turn in row.messages] for row in each] == [
        ["user", "function_call"],
        ["user", "function_call", "observation", "assistant"],
    ]
    assert list(last) == list(each[1:])
