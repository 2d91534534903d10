"""What servers answered is kept: a file for each server, model and time, and a line in the run's record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.evaluation.rows import Row, read_rows
from orchestrator.lib.files import sha256
from orchestrator.runs import store
from orchestrator.serving import answer_files
from orchestrator.serving.endpoint import Endpoint
from tests.conftest import write_tree
from tests.test_ship_endpoint import openai, server
from tests.warm_tool import run_tool_warm

MOMENT = "2026-11-28T12:22:10Z"


def rows(answer: str) -> list[Row]:
    return [Row("1", "标题", "体育", answer)]


@pytest.mark.parametrize(
    ("url", "model", "name"),
    [
        ("http://127.0.0.1:8000/v1", "news", "endpoint-127.0.0.1_8000-news-20261128T122210Z.jsonl"),
        ("https://me:secret@host/v1", "ORG/新闻:q4", "endpoint-host-ORG_新闻_q4-20261128T122210Z.jsonl"),
        ("http://[::1]:80", "../..", "endpoint-_1_80-model-20261128T122210Z.jsonl"),
    ],
)
def test_a_file_is_named_after_server_model_and_time(url: str, model: str, name: str) -> None:
    assert answer_files.file_name(Endpoint(url, "openai", model), MOMENT) == name


def test_no_answer_is_overwritten(tmp_path: Path) -> None:
    wanted = tmp_path / "answers" / "endpoint.jsonl"
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda number: answer_files.keep(rows(str(number)), wanted), range(8)))
    assert sorted({file.name for file in files}) == sorted(
        ["endpoint.jsonl", *(f"endpoint-{n}.jsonl" for n in range(2, 9))]
    )
    assert [read_rows(file)[0].prediction for file in files] == [str(number) for number in range(8)]


def test_the_record_knows_every_file(tmp_path: Path) -> None:
    run = store.create(tmp_path, "news")
    for answer in ("体育", "财经"):
        file = answer_files.keep(rows(answer), run.folder / "evaluation/endpoint.jsonl")
        answer_files.record(run, file, Endpoint("https://me:secret@host/v1?key=secret", "openai", "news"), 1, MOMENT)
    answer_files.record(
        run, answer_files.keep(rows("x"), tmp_path / "elsewhere.jsonl"), Endpoint("", "openai", ""), 1, MOMENT
    )
    first, second = store.load(run.folder).record["endpoints"]
    assert first == {
        "path": "evaluation/endpoint.jsonl",
        "server": "https://host/v1",
        "model": "news",
        "asked_at": MOMENT,
        "rows": 1,
        "sha256": sha256(run.folder / "evaluation/endpoint.jsonl"),
    }
    assert second["path"] == "evaluation/endpoint-2.jsonl"
    assert "secret" not in (run.folder / "run.json").read_text(encoding="utf-8")


def test_asking_again_keeps_what_was_answered_before(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "今天天气怎么样？"}, {"from": "gpt", "value": "晴"}]
    write_tree(tmp_path, {"rows.json": json.dumps([{"conversations": turns}]), "mine.jsonl": "already here\n"})
    with server(openai) as url:
        for options in ([], ["--model", "second"], ["--output", "mine.jsonl"]):
            done = run_tool_warm(("evaluate", "--endpoint", url, "--rows", "rows.json", *options), tmp_path)
            assert done.code == 0, done.stderr
    assert (tmp_path / "mine.jsonl").read_text(encoding="utf-8") == "already here\n"
    answers = {file: read_rows(file)[0].prediction for file in tmp_path.glob("*-*.jsonl")}
    assert sorted(answers.values()) == [f"{name}: 今天天气怎么样？" for name in ("first", "first", "second")]
