"""Requests to a server that may be busy, gone, behind a proxy, or another one than was meant."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from orchestrator.lib.errors import InputError, MissingError, OrchestratorError, StageError, reason

if TYPE_CHECKING:
    import ssl

    import httpx

ATTEMPTS = 4
BACKOFF_SECONDS = 0.5
"""Wait before the second attempt; doubled before each further one."""
_UNREADABLE = re.compile(r"invalid tool call arguments|does not match the expected \S+ format")
"""What Ollama and llama.cpp's server say when they could not read an answer, such as a call that was cut off at the
limit of tokens; they pass none of it on."""
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may change."""


class UnreadableAnswer(StageError):
    """The model answered, and the server could not read calls or thoughts out of the answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and the model on it to ask. `url` ends with /v1 for the OpenAI protocol, else it is Ollama's root."""

    url: str
    protocol: Literal["openai", "ollama"]
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    """Seconds that one answer may take."""
    think: bool | None = None
    """Whether Ollama is to have the model think; None leaves it to the server."""
    as_served: bool = False
    """Whether Ollama takes the model's own parameters instead of the likeliest token each time."""
    confidence: bool = False
    """Whether our own server is asked how likely each label is."""


def post(endpoint: Endpoint, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that comes back.

    Raises MissingError when nobody answers, InputError or StageError when the server refuses or answers otherwise.
    """
    with http_client(endpoint) as client:
        return json_object(endpoint, sent(endpoint, lambda: client.post(url, json=body)))


def get(endpoint: Endpoint, url: str) -> dict[str, Any]:
    """The same for a GET."""
    with http_client(endpoint) as client:
        return json_object(endpoint, sent(endpoint, lambda: client.get(url)))


def try_post(endpoint: Endpoint, url: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same from a server that may not know the address; None unless it answers with a JSON object."""
    import httpx

    try:
        with http_client(endpoint) as client:
            response = client.post(url, json=body)
            found = response.json() if response.status_code == 200 else None
    except (httpx.TransportError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def http_client(endpoint: Endpoint, **options: Any) -> httpx.Client:
    """A client with the server's key; a proxy of the environment cannot reach this machine's own loopback."""
    import httpx

    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    trust_env = not is_here(endpoint.url)
    options = {"timeout": endpoint.timeout, **options}
    return httpx.Client(headers=headers, trust_env=trust_env, verify=_certificates(trust_env), **options)


@functools.cache
def _certificates(trust_env: bool) -> ssl.SSLContext:
    """What httpx makes for each client: reading the authorities anew takes 20 ms, longer than many an answer."""
    import httpx

    return httpx.create_ssl_context(trust_env=trust_env)


def is_here(url: str) -> bool:
    """Whether a URL is one of this machine's loopback."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def in_url(host: str) -> str:
    """A host as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def no_engine(said: str) -> MissingError | None:
    """What to tell of an Ollama without llama.cpp's programs, of which it starts one for each model; else None."""
    found = re.search(r"[\w-]+ binary not found", said)
    if found is None:
        return None
    return MissingError(
        f"this Ollama has no engine: {found[0]}",
        "Install it whole, from https://ollama.com/download: the program alone runs no model.",
    )


def is_page(response: httpx.Response) -> bool:
    """Whether an answer is a web page, as proxies and login servers send it."""
    return "html" in response.headers.get("Content-Type", "") or response.text.lstrip().startswith("<")


def error_text(found: Mapping[str, Any]) -> str:
    """What a server says in an error, in any of the usual forms."""
    error = found["error"]
    return str(error.get("message", error) if isinstance(error, dict) else error)


def sent(endpoint: Endpoint, send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer to a request, which is sent again while the server is busy or breaks the connection off."""
    import httpx

    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        try:
            response = send()
        except httpx.TransportError as error:
            if last:
                raise unreachable(endpoint.url, error) from error
            time.sleep(BACKOFF_SECONDS * 2**attempt)
            continue
        if response.status_code < 400:
            return response
        if last or response.status_code not in BUSY or no_engine(response.text) or _is_unreadable(response):
            raise refused(endpoint, response)
        time.sleep(_pause(response, attempt))
    raise AssertionError("unreachable")


def json_object(endpoint: Endpoint, response: httpx.Response) -> dict[str, Any]:
    """The JSON object in an answer. Raises as `post` does for anything else."""
    try:
        found = response.json()
    except ValueError:
        found = None
    if isinstance(found, dict) and not found.get("error"):
        return found
    if isinstance(found, dict):
        raise no_engine(error_text(found)) or StageError(
            f"{endpoint.url} answered: {error_text(found)}", "Read the server's own log."
        )
    if is_page(response):
        raise InputError(
            f"{endpoint.url} answers with a web page",
            "Is that the server's own address? A proxy or a login page may stand in front of it.",
        )
    raise StageError(f"{endpoint.url} answered something else: {response.text.strip()[:120]!r}")


@contextlib.contextmanager
def reading(endpoint: Endpoint, answer: Mapping[str, Any]) -> Iterator[None]:
    """For what looks into an answer: raises StageError where the protocol has something that is not there."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError):
        raise StageError(f"{endpoint.url} answered something else: {str(answer)[:120]}") from None


def _pause(response: httpx.Response, attempt: int) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 60.0) if asked.isdecimal() else BACKOFF_SECONDS * 2**attempt


def refused(endpoint: Endpoint, response: httpx.Response) -> OrchestratorError:
    """The error of a status from 400 on."""
    if missing := no_engine(response.text):
        return missing
    said = f"{endpoint.url} answered {response.status_code}: {_text(response)}"
    if _is_unreadable(response):
        return UnreadableAnswer(said, "Read the server's own log.")
    if response.status_code in (401, 403):
        return InputError(said, "Put the server's key into an environment variable and name it with --api-key-env.")
    if "context_length_exceeded" in response.text:
        return InputError(said, "Write a shorter text; in a chat, /new forgets what was said before.")
    if response.status_code < 500:
        return InputError(said, f"Check --endpoint and --model (now {endpoint.model!r}).")
    return StageError(said, "Read the server's own log.")


def _text(response: httpx.Response) -> str:
    """What a refusal says, out of its JSON where there is some."""
    if is_page(response):
        return "a web page"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return error_text(response.json())[:200]
    return response.text.strip()[:200]


def _is_unreadable(response: httpx.Response) -> bool:
    return response.status_code == 500 and bool(_UNREADABLE.search(response.text))


def unreachable(url: str, error: Exception) -> MissingError:
    """The error of a server that does not answer."""
    return MissingError(f"{url} does not answer: {reason(error)}", "Is the server running, and is that its address?")
