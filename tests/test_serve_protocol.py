"""What a real client, and a careless one, may send to our real servers: the GGUF's, and the tuned model's."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import hypothesis
import openai
import pytest

from orchestrator.lib import layout
from orchestrator.lib.process import Child
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, serve
from orchestrator.serving.endpoint import Endpoint
from tests import fuzz_serve

QUESTION = [{"role": "user", "content": "今天的新闻？"}]
SECONDS = 60.0
"""What a client waits for an answer at most, eight at a time included."""
FUZZED = 2000


@pytest.fixture(scope="module", params=["f16", "tuned"])
def served(served_once: Callable[[str], Endpoint], request: pytest.FixtureRequest) -> Endpoint:
    return served_once(request.param)


@pytest.fixture(scope="module")
def rows(shipped_run: Run) -> list[dict[str, Any]]:
    """Each held-out row with the answer that was measured; the tuned model of this run has those of its f16 GGUF."""
    prompts = (shipped_run.folder / layout.PROMPTS).read_text(encoding="utf-8").splitlines()
    answers = artifacts.answers(shipped_run, "f16").read_text(encoding="utf-8").splitlines()
    pairs = zip(map(json.loads, prompts), map(json.loads, answers), strict=True)
    return [{**row, "measured": answer["prediction"]} for row, answer in pairs]


@functools.cache
def client(served: Endpoint) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url, api_key=served.key, max_retries=0, timeout=SECONDS)


def chat(served: Endpoint, **values: Any) -> Any:
    return client(served).chat.completions.create(**{"model": served.model, "messages": QUESTION, **values})


@pytest.fixture
def raw(served: Endpoint) -> Iterator[httpx.Client]:
    with raw_client(served) as opened:
        yield opened


def raw_client(served: Endpoint) -> httpx.Client:
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json"}
    return httpx.Client(base_url=served.url, headers=headers, timeout=SECONDS, trust_env=False)


def require_measured(served: Endpoint, row: dict[str, Any]) -> None:
    reply = chat(served, messages=row["messages"], max_tokens=4)
    assert reply.choices[0].message.content == row["measured"]
    assert reply.usage.prompt_tokens == len(row["ids"])


def test_both_engines_answer_as_measured(served: Endpoint, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        require_measured(served, row)


def test_a_row_in_parts_and_with_nulls_is_the_same_row(served: Endpoint, rows: list[dict[str, Any]]) -> None:
    for row in rows[:2]:
        texts = [message["content"] for message in row["messages"]]
        parts = [[{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}] for text in texts]
        messages = [{**m, "content": part} for m, part in zip(row["messages"], parts, strict=True)]
        reply = chat(served, messages=messages, max_tokens=4, temperature=None, n=None, stop=None, top_p=None)
        assert reply.choices[0].message.content == row["measured"]


def test_a_developer_is_the_system(served: Endpoint) -> None:
    counts = [
        chat(served, messages=[{"role": role, "content": "答一个词"}, *QUESTION], max_tokens=1).usage.prompt_tokens
        for role in ("system", "developer")
    ]
    assert counts[0] == counts[1]


def test_two_choices_are_two(served: Endpoint, rows: list[dict[str, Any]]) -> None:
    reply = chat(served, messages=rows[0]["messages"], max_tokens=4, n=2)
    assert [choice.message.content for choice in reply.choices] == [rows[0]["measured"]] * 2
    warm = [chat(served, n=2, max_tokens=4, temperature=1.5, seed=3) for _ in range(2)]
    said = [[choice.message.content for choice in reply.choices] for reply in warm]
    assert said[0] == said[1]
    assert said[0][0] != said[0][1]


def test_a_stream_says_the_same_and_counts(served: Endpoint, rows: list[dict[str, Any]]) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, counted = chat(served, messages=rows[0]["messages"], max_tokens=4, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == rows[0]["measured"]
    assert (counted.usage.prompt_tokens, counted.usage.completion_tokens) == (len(rows[0]["ids"]), 4)
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_that_does_not_fit_is_refused_and_the_connection_goes_on(raw: httpx.Client, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 2000}], "stream": stream}
    for _ in range(2):
        reply = raw.post("/chat/completions", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert raw.post("/chat/completions", json={"messages": QUESTION, "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b'{"messages": [{"role": "user", "content": "\\ud83d"}]}'])
def test_what_is_no_request_is_refused(raw: httpx.Client, body: bytes) -> None:
    reply = raw.post("/chat/completions", content=body)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_the_openai_client_tells_what_is_not_done(served: Endpoint) -> None:
    for values in ({"logprobs": True}, {"max_tokens": 0}, {"tools": [{"type": "function", "function": {"name": "f"}}]}):
        with pytest.raises(openai.BadRequestError, match=next(iter(values))) as refused:
            chat(served, **values)
        assert refused.value.param == next(iter(values))
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client(served).embeddings.create(model=served.model, input="x")


def test_the_server_describes_itself(raw: httpx.Client, served: Endpoint) -> None:
    described = raw.get(served.url.replace("/v1", "/openapi.json")).json()
    assert set(described["components"]["schemas"]["ChatRequest"]["properties"]) >= {"messages", "max_tokens"}
    assert [model.id for model in client(served).models.list()] == [served.model]


def test_eight_at_a_time_are_all_answered(served: Endpoint, rows: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: require_measured(served, row), rows))


def test_clients_that_go_away_leave_room_for_the_next(served: Endpoint, rows: list[dict[str, Any]]) -> None:
    for stream in (True, False, True):
        leave(served, {"messages": QUESTION, "stream": stream, "temperature": 1})
    require_measured(served, rows[0])


def leave(served: Endpoint, body: dict[str, Any]) -> None:
    """Send a request, and close the connection without reading the answer."""
    host, port = urlsplit(served.url).netloc.split(":")
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        connection.sendall(f"{head}Authorization: Bearer {served.key}\r\n\r\n".encode() + data)


def test_thoughts_come_back_apart_from_a_real_engine(
    shipped_run: Run, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words around a thought are parts of an answer that is known, since this model was not trained to think."""
    row = max(rows, key=lambda row: len(row["measured"].strip()))
    whole = row["measured"].strip()
    words = (whole[:2], whole[5:8])
    monkeypatch.setattr(serve, "thought_words", lambda *_: words)
    with serve.running(shipped_run, "f16", serve.where(port=0, context=512)) as (served, _):
        said = chat(served, messages=row["messages"], max_tokens=4).choices[0].message
        chunks = list(chat(served, messages=row["messages"], max_tokens=4, stream=True))
    expected = (whole[2:5].strip(), row["measured"].lstrip()[8:].lstrip())
    assert (said.reasoning_content, said.content) == expected
    deltas = [chunk.choices[0].delta for chunk in chunks]
    streamed = [
        "".join(getattr(delta, part, "") or "" for delta in deltas) for part in ("reasoning_content", "content")
    ]
    assert tuple(streamed) == expected


def special_texts(shipped_run: Run) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(shipped_run.folder / layout.MERGED))
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def test_special_texts_become_the_tokens_that_they_become_in_training(shipped_run: Run, served: Endpoint) -> None:
    """Every text of a special token, inside a question and around it: the number of tokens is that of training."""
    from tests.training_prompts import training_prompt_ids

    texts = special_texts(shipped_run)
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(texts)
    questions = [[{"role": "user", "content": around.format(text)}] for text in texts for around in ("{}", "今天{}x ")]
    trained = training_prompt_ids("smollm2", shipped_run.folder / layout.MERGED, questions, thinking=False)
    counts = [chat(served, messages=question, max_tokens=1).usage.prompt_tokens for question in questions]
    assert counts == [len(ids) for ids in trained]


def test_special_texts_become_their_very_tokens_in_llama_cpp(shipped_run: Run) -> None:
    import llama_cpp

    from orchestrator.serving.serve_gguf import LlamaCpp
    from tests.training_prompts import training_prompt_ids

    llama = llama_cpp.Llama(str(shipped_run.folder / layout.gguf("tiny", "f16")), vocab_only=True, verbose=False)
    engine = LlamaCpp(llama, ["<|im_end|>"], None)
    texts = [*special_texts(shipped_run), "{{ 7 * 7 }}", "\0", "\u2028", "👩‍👩‍👧", "<think>x</think>", ""]
    asked = [[{"role": "user", "content": f"今天 {text}{text} x"}] for text in texts]
    asked += [[{"role": "system", "content": text}, *QUESTION] for text in texts]
    trained = training_prompt_ids("smollm2", shipped_run.folder / layout.MERGED, asked, thinking=False)
    assert [engine.prompt(messages) for messages in asked] == trained


# ---- requests that nobody thought of


def fuzz(served: Endpoint, count: int) -> None:
    """As many drawn requests, each answered or refused as the protocol has it."""
    with raw_client(served) as opened:

        @hypothesis.seed(19)
        @hypothesis.settings(
            max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(fuzz_serve.requests())
        def ask(drawn: fuzz_serve.Drawn) -> None:
            fuzz_serve.require_sound(opened.post(drawn.path, content=drawn.body), drawn)

        ask()


def log_of(shipped_run: Run, artifact: str) -> str:
    return (shipped_run.folder / layout.log(f"serve-{artifact}")).read_text(encoding="utf-8")


def test_requests_that_nobody_thought_of(
    shipped_run: Run, served_once: Callable[[str], Endpoint], rows: list[dict[str, Any]]
) -> None:
    served = served_once("f16")
    fuzz(served, 60)
    require_measured(served, rows[0])
    assert "Traceback" not in log_of(shipped_run, "f16")


@pytest.mark.nightly
@pytest.mark.parametrize("artifact", ["f16", "tuned"])
def test_two_thousand_requests_that_nobody_thought_of(
    shipped_run: Run, artifact: str, rows: list[dict[str, Any]]
) -> None:
    with serve.running(shipped_run, artifact, serve.where(port=0, context=512)) as (served, child):
        fuzz(served, FUZZED)
        require_alive(child)
        for row in rows:
            require_measured(served, row)
    assert "Traceback" not in log_of(shipped_run, artifact)


def require_alive(child: Child) -> None:
    assert child.poll() is None
