"""Asking over HTTP: protocols, retries, refusals, order, streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.serving import _show_answers_or_refusal
from orchestrator.evaluation.rows import write_rows
from orchestrator.lib.errors import InputError, MissingError, StageError
from orchestrator.runs.store import Run
from orchestrator.serving import http, rows
from orchestrator.serving.chat import Conversation, talk
from orchestrator.serving.endpoint import Endpoint, Reply, ask, ask_all, connect, stream
from orchestrator.serving.prompts import Told, compare, render_all
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


@pytest.mark.parametrize("status", sorted(http.BUSY))
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
    monkeypatch.setattr(http, "BACKOFF_SECONDS", 0.0)
    with server(openai) as url:
        gone = url
    with pytest.raises(MissingError, match="does not answer"):
        ask(Endpoint(f"{gone}/v1", "openai", "first"), QUESTION, 7)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://a/b", "http://", "晴", "http://[::1:8000/v1", "http://[a]/v1", "http://127.0.0.1:80OO/v1",
     "http://127.0.0.1:99999/v1"],
)  # fmt: skip
def test_what_is_no_url_is_said_so(url: str) -> None:
    with pytest.raises(InputError, match="is no URL"):
        connect(url)


def test_an_answer_of_another_kind_is_an_error() -> None:
    with server(lambda *_: (200, {"hello": "world"})) as url, pytest.raises(StageError, match="something else"):
        ask(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7)


@pytest.mark.parametrize("listed", [{"data": ["a"]}, {"data": [{"name": "a"}]}, {"data": 7}])
def test_a_list_of_models_of_another_kind_is_an_error(listed: Any) -> None:
    with server(lambda *_: (200, listed)) as url, pytest.raises(StageError, match="something else"):
        connect(f"{url}/v1")


def test_an_ollama_behind_a_key_is_known_as_one() -> None:
    """A proxy asks for the key at every path, /api/version among them."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_GET(self) -> None:
            keyed = self.headers["Authorization"] == "Bearer secret"
            status, value = ollama("GET", self.path, {}) if keyed else (401, {"error": "no key"})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

    with serving(Handler) as url:
        assert connect(url, key="secret") == Endpoint(url, "ollama", "news:latest", "secret")


def test_a_stream_gives_the_pieces() -> None:
    pieces = [{"role": "assistant"}, {"content": "今天"}, {"content": "晴\u2028\x85朗"}, {}]
    lines = [f"data: {json.dumps({'choices': [{'delta': piece}]}, ensure_ascii=False)}\n\n" for piece in pieces]
    text = ": ping\n\n" + "".join(lines) + "data: [DONE]\n\n"
    with server(lambda *_: (200, text)) as url:
        assert list(stream(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7)) == ["今天", "晴\u2028\x85朗"]


def test_a_chat_goes_on_after_a_text_that_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    """What was not answered is not remembered."""
    sent: list[list[str]] = []

    def answer(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        sent.append([message["content"] for message in body["messages"]])
        if "long" in sent[-1]:
            told = {"message": "the prompt has 5000 tokens", "type": "x", "code": "context_length_exceeded"}
            return 400, {"error": told}
        return 200, f"data: {json.dumps({'choices': [{'delta': {'content': 'yes'}}]})}\n\ndata: [DONE]\n\n"

    questions = iter(["short", "long", "again"])
    with server(answer) as url:
        conversations = {"f16": Conversation(Endpoint(f"{url}/v1", "openai", "first"), 7)}
        talk(conversations, lambda: next(questions, None), _show_answers_or_refusal)
    assert sent == [["short"], ["short", "yes", "long"], ["short", "yes", "again"]]
    said = capsys.readouterr()
    assert said.out == "yes\n" * 2
    assert said.err.splitlines() == [
        f"error: {url}/v1 answered 400: the prompt has 5000 tokens",
        "hint: Write a shorter text; in a chat, /new forgets what was said before.",
    ]


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
        manner = rows.Manner(max_new_tokens=7)
        replies = rows.ask(questions, connect(url), manner)
    write_rows(tmp_path / "answers.jsonl", rows.predictions(questions, replies, manner))
    written = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == [
        {"id": "1", "prompt": "天气？", "label": "晴", "prediction": "first: 天气？"},
        {"id": "2", "prompt": "News?", "label": "None", "prediction": "first: News?"},
    ]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_a_thought_that_comes_apart_is_put_back(key: str) -> None:
    message = {"role": "assistant", "content": "晴", key: "看云。\n"}
    answer = {"choices": [{"message": message}], "usage": {"prompt_tokens": 3}}
    with server(lambda *_: (200, answer)) as url:
        reply = ask(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7)
    assert reply == Reply("晴", 3, "看云。\n")
    assert reply.whole() == "<think>\n看云。\n</think>\n\n晴"
    assert reply.whole(("◁think▷", "◁/think▷")) == "◁think▷看云。◁/think▷晴"


def test_an_answer_that_ended_in_its_thought_has_no_text() -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": None, "reasoning": "看云"}}]}
    with server(lambda *_: (200, answer)) as url:
        assert ask(Endpoint(f"{url}/v1", "openai", "m"), QUESTION, 7) == Reply("", None, "看云")


def test_ollama_is_told_whether_to_think_and_tells_the_thought_apart() -> None:
    asked: list[dict[str, Any]] = []

    def thinks(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(body)
        return 200, {"message": {"content": "晴", "thinking": "看云。"}, "prompt_eval_count": 11}

    with server(thinks) as url:
        replies = [ask(Endpoint(url, "ollama", "m", think=think), QUESTION, 7) for think in (True, False, None)]
    assert replies == [Reply("晴", 11, "看云。")] * 3
    assert [body.get("think") for body in asked] == [True, False, None]
    assert "think" not in asked[2]


def test_a_streamed_thought_stands_between_its_words() -> None:
    pieces = [{"reasoning_content": "\n看\n"}, {"reasoning_content": "云\n"}, {"content": "晴"}, {"content": "天"}]
    lines = [f"data: {json.dumps({'choices': [{'delta': piece}]})}\n\n" for piece in pieces]
    with server(lambda *_: (200, "".join(lines))) as url:
        assert "".join(stream(Endpoint(f"{url}/v1", "openai", "m"), QUESTION, 7)) == "<think>\n看\n云\n</think>\n\n晴天"


def test_an_error_in_mid_stream_is_quoted() -> None:
    lines = [{"choices": [{"delta": {"content": "今天"}}]}, {"error": {"message": "out of memory"}}]
    text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
    with server(lambda *_: (200, text)) as url, pytest.raises(StageError, match="broke off: out of memory"):
        list(stream(Endpoint(f"{url}/v1", "openai", "first"), QUESTION, 7))


def test_an_error_in_a_good_answer_is_quoted() -> None:
    with server(lambda *_: (200, {"error": "没有模型"})) as url, pytest.raises(StageError, match="没有模型"):
        ask(Endpoint(url, "ollama", "first"), QUESTION, 7)


def test_a_web_page_is_no_server() -> None:
    page = (200, "<!DOCTYPE html><title>登录</title>")
    with server(lambda *_: page) as url, pytest.raises(InputError, match="answers with a web page"):
        connect(url)


PROMPT = {"id": "7", "messages": QUESTION, "text": "<s>User: 今天天气？\nBot:", "ids": [1, 5, 6, 7]}


@pytest.mark.parametrize("told", ["<s>User: 今天天气？\nBot:", "User: 今天天气？\nBot:"])
def test_a_prompt_may_lack_the_bos_that_the_engine_adds(told: str) -> None:
    found = compare([PROMPT], [Told(told, 4)], "<s>")
    assert (found.texts, found.equal_texts, found.equal_counts, found.passed) == (1, 1, 1, True)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("User: 今天天气! \nBot:", "row 7, character 11: '! \\nBot:', in training '？\\nBot:'"),
        ("User: 今天天气？\nBot:\n", "row 7, character 17: '\\n', in training its end"),
        ("<s>", "row 7, character 4: its end, in training 'User: 今天天气？\\nBot:'"),
        (
            "<s><s>User: 今天天气？\nBot:",
            "row 7, character 4: '<s>User: 今天天气？\\nBot:', in training 'User: 今天天气？\\nBot:'",
        ),
    ],
)
def test_the_first_other_character_is_named(told: str, words: str) -> None:
    found = compare([PROMPT], [Told(told, 4)], "<s>")
    assert (found.equal_texts, found.passed, found.difference) == (0, False, words)


def test_a_text_that_reads_otherwise_is_trainings_if_its_tokens_are() -> None:
    decoded = {**PROMPT, "text": "<s> User: 今天天气？\nBot:"}
    told = [Told("User: 今天天气？\nBot:", 4)]
    assert compare([decoded], told, "<s>", lambda text: [5, 6, 7]).passed
    assert not compare([decoded], told, "<s>", lambda text: [5, 6, 8]).passed


def test_the_number_of_tokens_is_the_second_proof() -> None:
    found = compare([PROMPT, {**PROMPT, "ids": None, "text": None}], [Told(None, 5), Told(None, 9)], "<s>")
    assert (found.texts, found.counted, found.equal_counts) == (0, 1, 0)
    assert found.difference == "row 7: 5 tokens, 4 in training"
    assert str(found) == "0 of 1 prompts have the number of tokens of training"
    assert "does not tell" in str(compare([PROMPT], [Told(None, None)], None))


def test_llama_cpps_server_tells_the_prompt_and_others_are_asked_once() -> None:
    asked: list[str] = []

    def llama_server(method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(path)
        return (
            (200, {"prompt": f"User: {body['messages'][0]['content']}"}) if path == "/apply-template" else (404, "no")
        )

    with server(llama_server) as url:
        assert render_all(Endpoint(f"{url}/v1", "openai", "m"), [QUESTION] * 2) == ["User: 今天天气怎么样？"] * 2
    with server(lambda *_: (404, "404 page not found")) as url:
        assert render_all(Endpoint(f"{url}/v1", "openai", "m"), [QUESTION] * 2) == [None, None]
    assert asked == ["/apply-template"] * 2
