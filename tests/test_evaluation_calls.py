"""Calls are compared as calls: names, and arguments as JSON values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.evaluation.call_metrics import call_metrics
from orchestrator.evaluation.calls import Call, CallReader, argument_f1, expected_calls, same
from orchestrator.evaluation.compare import Basis, compare
from orchestrator.evaluation.measure import measure, mistakes
from orchestrator.evaluation.metric import primary, primary_of
from orchestrator.evaluation.rows import Row, read_rows, write_rows
from orchestrator.evaluation.scores import Evidence, Terms, score
from orchestrator.evaluation.summary import summarise
from orchestrator.stages.score import with_calls

OSLO = Call("get_weather", {"city": "Oslo"})
BOOK = Call("book", {"title": 'He said "hi, {you}"', "tags": ["红", "b"], "n": 2})


def qwen(*calls: Call) -> str:
    return CallReader("qwen").written(calls)


def row(number: int, label: str, prediction: str) -> Row:
    return Row(str(number), "", label, prediction).with_calls(CallReader("qwen"))


def as_label(*calls: Call) -> str:
    return json.dumps([call.to_json() for call in calls], ensure_ascii=False)


@pytest.mark.parametrize("template", ["qwen", "smollm2", "llama3", "mistral", "qwen3_5", "glm4", "lfm2", "seed_oss"])
def test_calls_written_as_in_training_are_read_back(template: str) -> None:
    reader = CallReader(template)
    plain = Call("book", {"title": "北京 dumplings", "n": 2})

    assert same(reader.read(reader.written([plain])), [plain])
    assert reader.reads_back


@pytest.mark.parametrize("template", ["glm4_moe", "minimax2"])
def test_a_format_whose_calls_llamafactory_does_not_find_is_known(template: str) -> None:
    assert not CallReader(template).reads_back


def test_order_and_spacing_of_keys_and_order_of_calls_do_not_matter() -> None:
    reader = CallReader("qwen")
    arguments = '{"n":2.0,"tags":["红","b"],"title":"He said \\"hi, {you}\\""}'
    text = f'<tool_call>{{"arguments":{arguments},"name":"book"}}</tool_call>'

    assert same(reader.read(text), [BOOK])
    assert same([OSLO, BOOK], [BOOK, OSLO])
    assert not same([BOOK], [Call("book", {**BOOK.arguments, "tags": ["b", "红"]})])
    assert not same([Call("f", {"on": True})], [Call("f", {"on": 1})])


@pytest.mark.parametrize("answer", ["", "Sunny.", "<tool_call>\n7\n</tool_call>", "<tool_call>[]</tool_call>", "{}"])
def test_what_is_no_call_is_read_as_none(answer: str) -> None:
    assert CallReader("qwen").read(answer) == ()


def test_a_call_that_was_cut_off_is_none_and_is_noticed() -> None:
    reader, whole = CallReader("qwen"), qwen(BOOK)

    assert all(not reader.read(whole[:end]) for end in range(len(whole)))
    assert all(reader.is_broken(whole[:end]) for end in range(len("<tool_call>"), len(whole)))
    assert not reader.is_broken("a <tool_call> is a tag")
    assert not reader.is_broken(whole)
    assert not reader.is_broken("Sunny.")


def test_a_label_is_read_as_json_and_as_the_template_writes_it() -> None:
    reader = CallReader("qwen")

    assert same(expected_calls(as_label(OSLO, BOOK), reader), [OSLO, BOOK])
    assert same(expected_calls(json.dumps(OSLO.to_json()), reader), [OSLO])
    assert same(expected_calls(qwen(OSLO), reader), [OSLO])
    assert expected_calls("It is 12 degrees.", reader) == ()
    assert expected_calls("12", reader) == ()


def test_f1_counts_arguments_of_the_right_tool() -> None:
    half = Call("book", {"title": "x", "tags": BOOK.arguments["tags"], "n": 2})

    assert argument_f1([BOOK], [BOOK]) == 1
    assert argument_f1([half], [BOOK]) == pytest.approx(2 / 3)
    assert argument_f1([Call("other", BOOK.arguments)], [BOOK]) == 0
    assert argument_f1([], [BOOK]) == 0
    assert argument_f1([Call("now", {})], [Call("now", {})]) == 1
    assert argument_f1([Call("then", {})], [Call("now", {})]) == 0


ROWS = [
    row(1, as_label(OSLO), qwen(OSLO)),
    row(2, as_label(OSLO), qwen(Call("get_weather", {"city": "Rome"}))),
    row(3, as_label(BOOK), qwen(BOOK)[:40]),
    row(4, as_label(OSLO, BOOK), qwen(BOOK, OSLO)),
    row(5, "No tool fits.", "No tool fits."),
    row(6, "No tool fits.", qwen(OSLO)),
]


def test_every_figure_is_about_the_rows_it_can_be_about() -> None:
    found = {name: interval.value for name, interval in call_metrics(ROWS).items()}

    assert found == {
        "call_accuracy": 50.0,
        "name_accuracy": 75.0,
        "argument_f1": 50.0,
        "missed_calls": 25.0,
        "spurious_calls": 50.0,
    }
    assert "spurious_calls" not in call_metrics(ROWS[:4])
    assert set(call_metrics(ROWS[4:])) == {"spurious_calls"}


def test_a_task_about_tools_is_about_its_calls() -> None:
    measured = measure(ROWS, "tools").metrics

    assert primary(measured) == primary_of("tools") == "call_accuracy"
    assert measured["call_accuracy"].low <= 50 <= measured["call_accuracy"].high
    assert [each["id"] for each in mistakes(ROWS, "tools")] == ["2", "3", "6"]


def test_calls_are_compared_pair_by_pair() -> None:
    right = [row(n, as_label(OSLO), qwen(OSLO)) for n in range(12)]
    silent = [row(n, as_label(OSLO), "Rainy, I think.") for n in range(12)]
    text = [row(n, "No.", "No.") for n in range(12, 20)]

    better = compare(right + text, silent + text, Basis("tools", ("tuned", "base")))
    missed = compare(right + text, silent + text, Basis("tools", metric="missed_calls"))
    spurious = compare(right + text, silent + text, Basis("tools", metric="spurious_calls"))

    assert (better.metric, better.n, better.verdict) == ("call_accuracy", 12, "better")
    assert better.p_value == pytest.approx(2 / 2**12)
    assert (missed.value_a, missed.value_b, missed.verdict) == (0, 100, "better")
    assert (spurious.n, spurious.verdict) == (8, "cannot tell")


def test_calls_stand_in_the_predictions_file(tmp_path: Path) -> None:
    file = tmp_path / "tuned.jsonl"
    write_rows(file, [*ROWS, Row("7", "", "a", "b")])

    assert read_rows(file) == [*ROWS, Row("7", "", "a", "b")]
    assert "calls" not in file.read_text(encoding="utf-8").splitlines()[-1]


def test_the_summary_has_every_figure_a_verdict_for_each_and_what_was_cut_off() -> None:
    silent = [Row(each.id, "", each.label, "Rainy.") for each in ROWS]
    bare = {"base": silent, "tuned": [Row(each.id, "", each.label, each.prediction) for each in ROWS]}
    evidence, terms = Evidence(rows=with_calls(bare, "qwen")), Terms(task="tools", template="qwen")

    summary = summarise(score(evidence, terms), evidence, terms)

    assert summary["metrics"]["tuned"]["argument_f1"]["value"] == 50
    told = {entry["metric"]: entry for entry in summary["comparisons"]}
    assert list(told) == ["call_accuracy", "name_accuracy", "argument_f1", "missed_calls", "spurious_calls"]
    assert told["missed_calls"]["sentence"].startswith("missed: ")
    assert summary["notes"] == [
        "tuned: 1 of 6 answers begin a call that is none: cut off by max_new_tokens, or no JSON",
        "4 rows cannot show that tuned is better than base, which has call_accuracy 0.0 on them",
    ]
