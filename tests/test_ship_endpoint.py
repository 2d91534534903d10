"""Asking over HTTP: protocols, retries, refusals, order, streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError, MissingError, StageError
from orchestrator.evaluation.rows import write_rows
from orchestrator.records import Run
from orchestrator.ship import endpoint, rows
from orchestrator.ship.endpoint import Endpoint, Reply, ask, ask_all, connect, stream
from tests.serving import serving

QUESTION = [{"role": "user", "content": "今天天气怎么样？"}]
Answer = Callable[[str, str, dict[str, Any]], tuple[int, Any]]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server whose answers are `answer(method, path, body)` → status and JSON, or text as it is."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_GET(self) -> None:
            self.reply("GET")

        def do_POST(self) -> None:
            self.reply("POST")

        def reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = answer(method, self.path, json.loads(body) if body else {})
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode())

    with serving(Handler) as url:
        yield url


def openai(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    if (method, path) == ("GET", "/v1/models"):
        return 200, {"data": [{"id": "first"}, {"id": "second"}]}
    if (method, path) == ("POST", "/v1/chat/completions"):
        said = body["messages"][-1]["content"]
        message = {"role": "assistant", "content": f"{body['model']}: {said}"}
        return 200, {"choices": [{"message": message}], "usage": {"prompt_tokens": len(said)}}
    return 404, {"detail": "Not Found"}


def ollama(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    match method, path:
        case "GET", "/api/version":
            return 200, {"version": "0.12.0"}
        case "GET", "/api/tags":
            return 200, {"models": [{"name": "news:latest"}]}
        case "POST", "/api/chat":
            assert body["options"] == {"temperature": 0, "seed": 0, "num_predict": 7}
            return 200, {"message": {"content": "晴"}, "prompt_eval_count": 11}
    return 404, {"error": "not found"}


@pytest.mark.parametrize("path", ["", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_openai_server_is_recognised_however_its_url_is_written(path: str) -> None:
    with server(openai) as url:
        found = connect(url + path)
        assert found == Endpoint(f"{url}/v1", "openai", "first")
        assert ask(found, QUESTION, 7) == Reply("first: 今天天气怎么样？", 8)


@pytest.mark.parametrize("path", ["", "/", "/api/chat"])
def test_ollama_is_asked_through_its_own_api(path: str) -> None:
    with server(ollama) as url:
        found = connect(url + path)
        assert found == Endpoint(url, "ollama", "news:latest")
        assert ask(found, QUESTION, 7) == Reply("晴", 11)


def test_many_answers_come_in_the_order_of_the_questions() -> None:
    with server(openai) as url:
        conversations = [[{"role": "user", "content": str(number)}] for number in range(40)]
        seen: list[tuple[int, int]] = []
        replies = ask_all(connect(url), conversations, 7, 8, lambda done, total: seen.append((done, total)))
    assert [reply.text for reply in replies] == [f"first: {number}" for number in range(40)]
    assert seen == [(done, 40) for done in range(1, 41)]


@pytest.mark.parametrize("status", sorted(endpoint.BUSY))
def test_a_busy_server_is_asked_again(status: int) -> None:
    failures = [status, status]

    def busy(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (failures.pop(), "busy") if method == "POST" and failures else openai(method, path, body)

    with server(busy) as url:
        assert ask(connect(url), QUESTION, 7).text == "first: 今天天气怎么样？"
    assert failures == []


@pytest.mark.parametrize(
    ("status", "error", "times"),
    [(400, InputError, 1), (401, InputError, 1), (404, InputError, 1), (501, StageError, 1), (503, StageError, 4)],
)
def test_a_refusal_is_quoted(status: int, error: type[Exception], times: int) -> None:
    asked: list[str] = []

    def refuse(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(path)
        return status, {"error": "不行"}

    with server(refuse) as url, pytest.raises(error, match=f"answered {status}.*不行"):
        ask(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7)
    assert len(asked) == times


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BACKOFF_SECONDS", 0.0)
    with server(openai) as url:
        gone = url
    with pytest.raises(MissingError, match="does not answer"):
        ask(Endpoint(f"{gone}/v1", "openai", "first"), QUESTION, 7)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/b", "http://", "晴"])
def test_what_is_no_url_is_said_so(url: str) -> None:
    with pytest.raises(InputError, match="is no URL"):
        connect(url)


def test_an_answer_of_another_kind_is_an_error() -> None:
    with server(lambda *_: (200, {"hello": "world"})) as url, pytest.raises(StageError, match="something else"):
        ask(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7)


def test_a_stream_gives_the_pieces() -> None:
    pieces = [{"role": "assistant"}, {"content": "今天"}, {"content": "晴\u2028\x85朗"}, {}]
    lines = [f"data: {json.dumps({'choices': [{'delta': piece}]}, ensure_ascii=False)}\n\n" for piece in pieces]
    text = ": ping\n\n" + "".join(lines) + "data: [DONE]\n\n"
    with server(lambda *_: (200, text)) as url:
        assert list(stream(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7)) == ["今天", "晴\u2028\x85朗"]


def test_a_refused_stream_is_quoted() -> None:
    with server(lambda *_: (401, "Invalid API key")) as url, pytest.raises(InputError, match="Invalid API key"):
        list(stream(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7))


def test_the_key_is_not_shown() -> None:
    assert "geheim" not in repr(Endpoint("http://a/v1", "openai", "m", "geheim"))


def test_rows_of_a_run_may_hold_any_separator(tmp_path: Path) -> None:
    asked = "天气？\u2028北京\u2029\x85"
    prompt = {"id": "1", "prompt": asked, "label": "晴", "messages": [{"role": "user", "content": asked}], "ids": [1]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prompts.jsonl").write_text(json.dumps(prompt, ensure_ascii=False) + "\n", encoding="utf-8")
    assert rows.of_run(Run(tmp_path, {"id": "r"})) == [rows.Question("1", asked, "晴", prompt["messages"])]


def test_rows_of_a_data_file_become_predictions(tmp_path: Path) -> None:
    data = tmp_path / "eval.jsonl"
    turns = [{"instruction": "天气？", "output": "晴", "system": "一个词"}, {"instruction": "News?", "output": "None"}]
    data.write_text("".join(json.dumps(turn, ensure_ascii=False) + "\n" for turn in turns), encoding="utf-8")
    questions = rows.of_file(data)
    assert questions[0].messages == [{"role": "system", "content": "一个词"}, {"role": "user", "content": "天气？"}]
    with server(openai) as url:
        write_rows(tmp_path / "answers.jsonl", rows.answer(questions, connect(url), 7))
    written = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == [
        {"id": "1", "prompt": "天气？", "label": "晴", "prediction": "first: 天气？"},
        {"id": "2", "prompt": "News?", "label": "None", "prediction": "first: News?"},
    ]
