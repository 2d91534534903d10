"""Asking a model over HTTP: any OpenAI-compatible server (vLLM, llama-server, …), or Ollama's own /api/chat."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from orchestrator.errors import InputError, MissingError, StageError

if TYPE_CHECKING:
    import httpx

Message = Mapping[str, str]
ATTEMPTS = 4
BACKOFF_SECONDS = 0.5
"""Wait before the second attempt; doubled before each further one."""
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may change."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and the model on it to ask. `url` ends with /v1 for the OpenAI protocol, else it is Ollama's root."""

    url: str
    protocol: Literal["openai", "ollama"]
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    """Seconds that one answer may take."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and how many tokens the server made of the question; None where it does not say."""

    text: str
    prompt_tokens: int | None


def connect(url: str, model: str | None = None, key: str | None = None, timeout: float = 120.0) -> Endpoint:
    """The endpoint at a URL: Ollama's own API where the server is one and the URL does not end with /v1.

    Without `model` the only one, or the first one, that the server lists. Raises InputError for a URL or model that
    cannot be, and MissingError when nobody answers.
    """
    root = url.rstrip("/").removesuffix("/api/chat").removesuffix("/chat/completions")
    if urlsplit(root).scheme not in ("http", "https") or not urlsplit(root).netloc:
        raise InputError(f"--endpoint {url!r} is no URL", "Write it like http://127.0.0.1:8000/v1.")
    if not root.endswith("/v1") and _is_ollama(root, timeout):
        found = Endpoint(root, "ollama", model or "", key, timeout)
    else:
        found = Endpoint(root if root.endswith("/v1") else f"{root}/v1", "openai", model or "", key, timeout)
    return found if model else Endpoint(found.url, found.protocol, _first_model(found), key, timeout)


def models(endpoint: Endpoint) -> list[str]:
    """The names of the models that the server lists."""
    path, entries, name = (
        ("/models", "data", "id") if endpoint.protocol == "openai" else ("/api/tags", "models", "name")
    )
    with _client(endpoint) as client:
        listed = _sent(endpoint, lambda: client.get(endpoint.url + path)).json()
    return [str(entry[name]) for entry in listed.get(entries) or ()]


def ask(endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int) -> Reply:
    """One greedy answer. Raises MissingError when nobody answers, InputError or StageError when the server refuses."""
    path, body = _request(endpoint, messages, max_new_tokens, stream=False)
    with _client(endpoint) as client:
        answer = _sent(endpoint, lambda: client.post(endpoint.url + path, json=body)).json()
    try:
        if endpoint.protocol == "ollama":
            return Reply(answer["message"]["content"], answer.get("prompt_eval_count"))
        usage = answer.get("usage") or {}
        return Reply(answer["choices"][0]["message"]["content"] or "", usage.get("prompt_tokens"))
    except (KeyError, IndexError, TypeError):
        raise StageError(f"{endpoint.url} answered something else: {str(answer)[:120]}") from None


def ask_all(
    endpoint: Endpoint,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int,
    concurrency: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Reply]:
    """The greedy answers to many conversations, in their order; the first failure ends it."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    pool = ThreadPoolExecutor(max(1, concurrency))
    try:
        futures = [pool.submit(ask, endpoint, messages, max_new_tokens) for messages in conversations]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(done, len(futures))
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def stream(endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int) -> Iterator[str]:
    """The pieces of one greedy answer of an OpenAI-compatible server, as they come."""
    import httpx

    path, body = _request(endpoint, messages, max_new_tokens, stream=True)
    try:
        with _client(endpoint) as client, client.stream("POST", endpoint.url + path, json=body) as response:
            if response.status_code >= 400:
                response.read()
                raise _refused(endpoint, response)
            for line in _lines(response.iter_text()):
                data = line.removeprefix("data:").strip()
                if line.startswith("data:") and data != "[DONE]":
                    yield from _piece(json.loads(data))
    except httpx.TransportError as error:
        raise _unreachable(endpoint.url, error) from error


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Lines that "\\n" ends, and nothing else: httpx cuts its own at U+2028 too, which an answer may hold."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    yield rest


def _piece(chunk: dict[str, Any]) -> Iterator[str]:
    for choice in chunk.get("choices") or ():
        if text := (choice.get("delta") or {}).get("content"):
            yield text


def _request(
    endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int, stream: bool
) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": endpoint.model, "messages": list(messages), "stream": stream}
    if endpoint.protocol == "ollama":
        return "/api/chat", body | {"options": {"temperature": 0, "seed": 0, "num_predict": max_new_tokens}}
    return "/chat/completions", body | {"temperature": 0, "max_tokens": max_new_tokens}


def _client(endpoint: Endpoint) -> httpx.Client:
    import httpx

    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    # A proxy of the environment cannot reach this machine's own loopback.
    own = urlsplit(endpoint.url).hostname in ("localhost", "127.0.0.1", "::1")
    return httpx.Client(headers=headers, timeout=endpoint.timeout, trust_env=not own)


def _sent(endpoint: Endpoint, send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer to a request, which is sent again while the server is busy or breaks the connection off."""
    import httpx

    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        try:
            response = send()
        except httpx.TransportError as error:
            if last:
                raise _unreachable(endpoint.url, error) from error
            time.sleep(BACKOFF_SECONDS * 2**attempt)
            continue
        if response.status_code < 400:
            return response
        if last or response.status_code not in BUSY:
            raise _refused(endpoint, response)
        time.sleep(_pause(response, attempt))
    raise AssertionError("unreachable")


def _pause(response: httpx.Response, attempt: int) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 60.0) if asked.isdecimal() else BACKOFF_SECONDS * 2**attempt


def _refused(endpoint: Endpoint, response: httpx.Response) -> InputError | StageError:
    said = f"{endpoint.url} answered {response.status_code}: {response.text.strip()[:200]}"
    if response.status_code in (401, 403):
        return InputError(said, "Put the server's key into an environment variable and name it with --api-key-env.")
    if response.status_code < 500:
        return InputError(said, f"Check --endpoint and --model (now {endpoint.model!r}).")
    return StageError(said, "Read the server's own log.")


def _unreachable(url: str, error: Exception) -> MissingError:
    reason = str(error) or type(error).__name__
    return MissingError(f"{url} does not answer: {reason}", "Is the server running, and is that its address?")


def _is_ollama(root: str, timeout: float) -> bool:
    import httpx

    probe = Endpoint(root, "ollama", "", timeout=min(timeout, 10.0))
    try:
        with _client(probe) as client:
            response = client.get(f"{root}/api/version")
            return response.status_code == 200 and "version" in response.json()
    except (httpx.HTTPError, ValueError):
        return False


def _first_model(endpoint: Endpoint) -> str:
    listed = models(endpoint)
    if not listed:
        raise InputError(f"{endpoint.url} lists no model", "Name one with --model.")
    return listed[0]
