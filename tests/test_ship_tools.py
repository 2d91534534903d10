"""Tools asked of servers: what is sent, what comes back, and how a terminal shows it."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from orchestrator.evaluation.calls import Call, CallReader, same
from orchestrator.evaluation.measure import guess_task, measure
from orchestrator.lib.errors import GateError
from orchestrator.serving.chat import Conversation, shown
from orchestrator.serving.endpoint import Endpoint, Reply
from orchestrator.serving.prompts import Comparison
from orchestrator.serving.rows import Manner, ask, of_file, predictions
from orchestrator.serving.served import Served, _is_completed, _same, require_gate, summary
from tests.serving import serving

READER = CallReader("qwen")
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": CITY}}]
OSLO = Call("weather", {"city": "Oslo"})
CALL = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
OPENAI = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    call = json.dumps([OSLO.to_json()])
    asked = {"from": "human", "value": "Oslo?"}
    turns = [[asked, {"from": "function_call", "value": call}],
             [asked, {"from": "function_call", "value": call}, {"from": "observation", "value": "12"},
              {"from": "gpt", "value": "It is 12."}]]  # fmt: skip
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"conversations": each, "tools": json.dumps(TOOLS)} for each in turns]))
    return file


class Server(BaseHTTPRequestHandler):
    """Calls for the weather in both protocols, and tells what it has got once it has it; remembers what it was sent."""

    sent: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append(body)
        got = body["messages"][-1]["role"] == "tool"
        ollama = self.path == "/api/chat"
        message = {"role": "assistant", "content": "It is 12." if got else ""}
        if not got:
            message |= {"tool_calls": [CALL if ollama else OPENAI]}
        answer: Any = {"message": message, "prompt_eval_count": 7}
        if not ollama:
            answer = {"choices": [{"message": message}], "usage": {"prompt_tokens": 7}}
        if body["stream"]:
            pieces = [
                {"index": 0, "function": {"name": "weather", "arguments": part}} for part in ('{"city', '": "Oslo"}')
            ]
            pieces[1]["function"]["name"] = None  # type: ignore[index]
            deltas = [{"content": "It is 12."}] if got else [{"tool_calls": [piece]} for piece in pieces]
            events = [json.dumps({"choices": [{"delta": delta}]}) for delta in deltas]
            data = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()
        else:
            data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("protocol", ["ollama", "openai"])
def test_rows_with_tools_are_asked_with_tools_and_scored_as_calls(protocol: Any, rows: Path) -> None:
    Server.sent = []
    questions, manner = of_file(rows), Manner(16, concurrency=1)
    with serving(Server) as url:
        replies = ask(questions, Endpoint(url, protocol, "m"), manner)

    answered = predictions(questions, replies, manner)
    assert [body["tools"] for body in Server.sent] == [TOOLS, TOOLS]
    arguments = Server.sent[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == ({"city": "Oslo"} if protocol == "ollama" else '{"city": "Oslo"}')
    assert (answered[0].calls, answered[1].calls) == ((OSLO,), ())
    assert guess_task(answered)[0] == "tools"
    measured = measure(answered, "tools").metrics
    assert (measured["call_accuracy"].value, measured["spurious_calls"].value) == (100, 0)


def test_calls_told_apart_are_written_as_the_template_writes_them(rows: Path) -> None:
    questions = of_file(rows)[:1]
    (row,) = predictions(questions, [Reply("", 7, "so", (OSLO,))], Manner(16, reader=READER))

    assert row.prediction == f"<think>\nso\n</think>\n\n{READER.written([OSLO])}"
    assert row.calls is not None and same(row.calls, [OSLO])


def test_a_servers_calls_are_compared_with_those_that_were_measured() -> None:
    words = ("<think>\n", "\n</think>\n\n")
    measured = READER.written([OSLO])
    lisbon = Call("weather", {"city": "Lisbon"})

    assert _same(Reply("", 1, "", (OSLO,)), measured, words, READER)
    assert _same(Reply(measured, 1), measured, words, READER)
    assert _same(Reply("", 1, "so", (OSLO,)), f"<think>\nso\n</think>\n\n{measured}", words, READER)
    assert not _same(Reply("", 1, "", (lisbon,)), measured, words, READER)
    assert not _same(Reply("Well.", 1, "", (OSLO,)), measured, words, READER)


CUT = '<tool_call>\n{"name": "weather", "arguments": {"ci'
OLLAMA_SAYS = 'llama-server returned invalid tool call arguments for "weather": unexpected end of JSON input'


class Cut(BaseHTTPRequestHandler):
    """As Ollama of August 2026 answers where the limit of tokens cuts a call off; counts what it was asked."""

    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"error": OLLAMA_SAYS}).encode()
        self.send_response(500)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def test_an_answer_that_a_server_cannot_read_is_counted_and_asked_for_once(rows: Path) -> None:
    Cut.asked = 0
    questions, manner = of_file(rows), Manner(4, concurrency=1, reader=READER)
    with serving(Cut) as url:
        replies = ask(questions, Endpoint(url, "ollama", "m"), manner)

    assert Cut.asked == len(questions) == 2
    assert [OLLAMA_SAYS.split(chr(34))[0] in reply.unreadable for reply in replies] == [True, True]
    answered = predictions(questions, replies, manner)
    assert [(row.prediction, row.calls) for row in answered] == [("", ()), ("", ())]
    assert measure(answered, "tools").metrics["missed_calls"].value == 100


def test_a_broken_call_is_the_same_as_an_unreadable_answer_and_another_than_a_whole_call() -> None:
    words, unread = ("<think>\n", "\n</think>\n\n"), Reply("", None, unreadable="500")
    whole = Reply("", 1, "", (OSLO,))

    assert READER.is_broken(CUT) and not READER.is_broken("It is 12.")
    assert _same(unread, CUT, words, READER)
    assert not _same(unread, "It is 12.", words, READER)
    assert not _same(unread, READER.written([OSLO]), words, READER)
    assert not _same(whole, CUT, words, READER)
    assert (_is_completed(whole, CUT, READER), _is_completed(whole, READER.written([OSLO]), READER)) == (True, False)
    served = Served(8, 0.75, Comparison(8, 8, 8, 8), "GGUF", unreadable=1, completed=2)
    told = "1 it could not read and answered with an error; 2 measured as a broken call came whole"
    assert told in summary(served)
    with pytest.raises(GateError, match=f"75 % of 8 rows .*{told}"):
        require_gate(served, "m", 0.9)


def test_a_terminal_shows_a_call_as_a_call_and_takes_its_result() -> None:
    Server.sent = []
    with serving(Server) as url:
        conversation = Conversation(Endpoint(url, "openai", "m"), 16, tools=TOOLS)
        assert conversation.answer("Oslo?") == '→ weather(city="Oslo")'
        assert conversation.answer("/result 12") == "It is 12."

    roles = [turn["role"] for turn in Server.sent[1]["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert Server.sent[1]["messages"][2]["tool_call_id"] == Server.sent[1]["messages"][1]["tool_calls"][0]["id"]


def test_calls_that_want_a_result_are_counted() -> None:
    conversation = Conversation(Endpoint("", "openai", "m"), 16, _open=["a", "b", "c"])
    assert conversation.answer("/result 1") == "2 more calls want a result"
    assert conversation.answer("/result 2") == "1 more call wants a result"


def test_a_call_as_a_line() -> None:
    assert shown(Call("f", {"a": '他说 "x"', "n": [1]})) == '→ f(a="他说 \\"x\\"", n=[1])'
    assert shown(Call("now", {})) == "→ now()"
