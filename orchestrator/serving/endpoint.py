"""Asking a model over HTTP: any OpenAI-compatible server (vLLM, llama-server, …), or Ollama's own /api/chat."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from orchestrator.chat_template.messages import with_parsed_arguments
from orchestrator.evaluation.calls import Call, CallReader, Calls
from orchestrator.lib.errors import InputError, StageError
from orchestrator.serving.http import Endpoint as Endpoint
from orchestrator.serving.http import (
    UnreadableAnswer,
    error_text,
    get,
    http_client,
    post,
    reading,
    refused,
    unreachable,
)

Message = Mapping[str, Any]
"""OpenAI's: role, content, and for tools tool_calls and tool_call_id."""
Tools = Sequence[Mapping[str, Any]]
"""In the canonical form of chat_template/tools.py."""
THOUGHT_WORDS = ("<think>\n", "\n</think>\n\n")
"""What most templates of LLaMA-Factory put around a thought."""
THOUGHT_KEYS = ("thinking", "reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how many tokens the server made of the question; None where it does not say."""

    text: str
    prompt_tokens: int | None
    thought: str = ""
    """What the server tells apart from the answer: Ollama as `thinking` or `reasoning`, others as `reasoning_content`
    or `reasoning`."""
    calls: Calls = ()
    """What the server tells apart as calls of tools."""
    unreadable: str = ""
    """The server's words for an answer that it could not read, and of which it passed nothing on."""
    confidence: Mapping[str, Any] | None = None
    """How likely each label is, where our own server was asked for it."""

    def whole(self, words: tuple[str, str] = THOUGHT_WORDS, reader: CallReader | None = None) -> str:
        """Thought, answer and calls put together again, as the model wrote them: calls as its template writes them,
        as JSON without a reader."""
        text = self.text
        if self.calls:
            text += reader.written(self.calls) if reader else _as_json(self.calls)
        return enclosed(self.thought, words) + text if self.thought else text


def connect(url: str, model: str | None = None, key: str | None = None, timeout: float = 120.0) -> Endpoint:
    """The endpoint at a URL: Ollama's own API where the server is one and the URL does not end with /v1.

    Without `model` the only one, or the first one, that the server lists. Raises InputError for a URL or model that
    cannot be, and MissingError when nobody answers.
    """
    root = url.rstrip("/").removesuffix("/api/chat").removesuffix("/chat/completions")
    if not _is_url(root):
        raise InputError(f"--endpoint {url!r} is no URL", "Write it like http://127.0.0.1:8000/v1.")
    if not root.endswith("/v1") and _is_ollama(root, key, timeout):
        found = Endpoint(root, "ollama", model or "", key, timeout)
    else:
        found = Endpoint(root if root.endswith("/v1") else f"{root}/v1", "openai", model or "", key, timeout)
    return found if model else replace(found, model=_first_model(found))


def _is_url(text: str) -> bool:
    import httpx

    try:
        parts = urlsplit(text)
        return httpx.URL(text).scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (httpx.InvalidURL, ValueError):  # half an IPv6 address, or a port that is none
        return False


def models(endpoint: Endpoint) -> list[str]:
    """The names of the models that the server lists. Raises what `ask` raises."""
    path, entries, name = (
        ("/models", "data", "id") if endpoint.protocol == "openai" else ("/api/tags", "models", "name")
    )
    listed = get(endpoint, endpoint.url + path)
    with reading(endpoint, listed):
        return [str(entry[name]) for entry in listed.get(entries) or ()]


def ask(endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int, tools: Tools = ()) -> Reply:
    """One answer, greedy unless the endpoint is asked as it serves.

    An answer that the server cannot read is an empty one with its reason. Raises MissingError when nobody answers,
    InputError or StageError when the server refuses.
    """
    path, body = _request(endpoint, messages, max_new_tokens, tools, stream=False)
    try:
        answer = post(endpoint, endpoint.url + path, body)
    except UnreadableAnswer as error:
        return Reply("", None, unreadable=error.message)
    with reading(endpoint, answer):
        if endpoint.protocol == "ollama":
            return _reply(answer["message"], answer.get("prompt_eval_count"))
        choice = answer["choices"][0]
        reply = _reply(choice["message"], (answer.get("usage") or {}).get("prompt_tokens"))
        return replace(reply, confidence=choice.get("confidence"))


def enclosed(thought: str, words: tuple[str, str] = THOUGHT_WORDS) -> str:
    """A thought between the words around it. Servers keep some of the line ends beside them, and drop others."""
    return words[0] + thought.strip("\n") + words[1]


def _reply(message: Mapping[str, Any], prompt_tokens: int | None) -> Reply:
    thought = next((str(message[key]) for key in THOUGHT_KEYS if message.get(key)), "")
    calls = tuple(map(_call, message.get("tool_calls") or ()))
    text = message.get("content") if thought or calls else message["content"]
    return Reply(text or "", prompt_tokens, thought, calls)


def _call(told: Mapping[str, Any]) -> Call:
    """A call as OpenAI tells it, its arguments as JSON text, or as Ollama does, as an object."""
    name, arguments = told["function"]["name"], told["function"].get("arguments") or {}
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments)
    return Call(str(name), arguments)


def _as_json(calls: Calls) -> str:
    return json.dumps([call.to_json() for call in calls], ensure_ascii=False)


def ask_all(
    endpoint: Endpoint,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int,
    concurrency: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tools: Sequence[Tools] | None = None,
) -> list[Reply]:
    """The greedy answers to many conversations, each with its tools, in their order; the first failure ends it."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    pool = ThreadPoolExecutor(max(1, concurrency))
    try:
        pairs = zip(conversations, tools or [()] * len(conversations), strict=True)
        futures = [pool.submit(ask, endpoint, messages, max_new_tokens, offered) for messages, offered in pairs]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(done, len(futures))
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def stream(
    endpoint: Endpoint,
    messages: Sequence[Message],
    max_new_tokens: int,
    words: tuple[str, str] = THOUGHT_WORDS,
    tools: Tools = (),
) -> Iterator[str | Call]:
    """The pieces of one greedy answer of an OpenAI-compatible server, as they come; a thought between its words. Calls
    come last, each whole.

    Raises what `ask` raises; an error in mid-stream as StageError.
    """
    thinking, line_ends = False, ""
    called: dict[int, dict[str, str]] = {}
    for delta in _deltas(endpoint, messages, max_new_tokens, tools):
        for part in delta.get("tool_calls") or ():
            _gather(called.setdefault(part.get("index", len(called)), {"name": "", "arguments": ""}), part)
        thought = next((str(delta[key]) for key in THOUGHT_KEYS if delta.get(key)), "")
        text = delta.get("content") or ""
        if thought:
            told = line_ends + thought if thinking else words[0] + thought.lstrip("\n")
            line_ends = told[len(told.rstrip("\n")) :]  # the last ones belong to the words behind the thought
            thinking = True
            yield told.rstrip("\n")
        if text:
            yield words[1] + text if thinking else text
            thinking = False
    yield from (_call({"function": function}) for function in called.values())


def _gather(call: dict[str, str], part: Mapping[str, Any]) -> None:
    """Add a piece of a call: servers send names whole, arguments in pieces."""
    function = part.get("function") or {}
    call["name"] += function.get("name") or ""
    call["arguments"] += function.get("arguments") or ""


def _deltas(
    endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int, tools: Tools
) -> Iterator[dict[str, Any]]:
    import httpx

    path, body = _request(endpoint, messages, max_new_tokens, tools, stream=True)
    try:
        with http_client(endpoint) as client, client.stream("POST", endpoint.url + path, json=body) as response:
            if response.status_code >= 400:
                response.read()
                raise refused(endpoint, response)
            for line in _lines(response.iter_text()):
                data = line.removeprefix("data:").strip()
                if line.startswith("data:") and data != "[DONE]":
                    yield from _pieces(endpoint, json.loads(data))
    except httpx.TransportError as error:
        raise unreachable(endpoint.url, error) from error


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines that "\\n" ends, and nothing else: httpx cuts its own at U+2028 too, which an answer may hold."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    yield rest


def _pieces(endpoint: Endpoint, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if chunk.get("error"):
        raise StageError(f"{endpoint.url} broke off: {error_text(chunk)}", "Read the server's own log.")
    for choice in chunk.get("choices") or ():
        yield choice.get("delta") or {}


def _request(
    endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int, tools: Tools, stream: bool
) -> tuple[str, dict[str, Any]]:
    body = {"model": endpoint.model, **conversation(endpoint, messages, tools), "stream": stream}
    if endpoint.protocol == "ollama":
        if endpoint.think is not None:
            body["think"] = endpoint.think
        greedy = {} if endpoint.as_served else {"temperature": 0, "seed": 0}
        return "/api/chat", body | {"options": greedy | {"num_predict": max_new_tokens}}
    sure = {"confidence": True} if endpoint.confidence else {}
    return "/chat/completions", body | {"temperature": 0, "max_tokens": max_new_tokens} | sure


def conversation(endpoint: Endpoint, messages: Sequence[Message], tools: Tools) -> dict[str, Any]:
    """The messages and tools as the protocol has them: Ollama's own takes arguments as objects."""
    said = with_parsed_arguments(messages) if endpoint.protocol == "ollama" else list(messages)
    return {"messages": said} | ({"tools": list(tools)} if tools else {})


def _is_ollama(root: str, key: str | None, timeout: float) -> bool:
    import httpx

    probe = Endpoint(root, "ollama", "", key, timeout=min(timeout, 10.0))
    try:
        with http_client(probe) as client:
            response = client.get(f"{root}/api/version")
            return response.status_code == 200 and "version" in response.json()
    except (httpx.HTTPError, ValueError):
        return False


def _first_model(endpoint: Endpoint) -> str:
    listed = models(endpoint)
    if not listed:
        raise InputError(f"{endpoint.url} lists no model", "Name one with --model.")
    return listed[0]
