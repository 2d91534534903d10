"""What a hostile web page can send to a server of ours is refused, by the real servers too, with the key or without."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.serving.endpoint import Endpoint
from orchestrator.serving.guard import Guard, refused

LOOPBACK, NETWORK = "127.0.0.1", "192.168.1.5"
OURS = ("127.0.0.1:8080", "localhost:8080", "localhost", "LOCALHOST:9999", "[::1]:8080", "127.0.0.1")
REBOUND = (
    "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:8080", "[::1", "", ":8080",
    "127.0.0.1@evil.example", "evil.example#localhost", "2130706433", "0x7f.1", "localhost, evil.example", "例.example",
)  # fmt: skip
FOREIGN = (
    "http://evil.example", "https://127.0.0.1:8080.evil.example", "http://localhost:3000", "null", "",
    "http://evil.example:8080", "file://", "http://127.0.0.1:8080@evil.example",
)  # fmt: skip


def status(arrived_at: str = LOOPBACK, **headers: str) -> int:
    found = refused([(name.encode(), value.encode()) for name, value in headers.items()], arrived_at)
    return found[0] if found else 200


@pytest.mark.parametrize("host", OURS)
def test_our_own_names_are_answered(host: str) -> None:
    assert status(Host=host) == status(Host=host, Origin=f"http://{host}") == 200


@pytest.mark.parametrize("host", REBOUND)
@pytest.mark.parametrize("arrived_at", [LOOPBACK, NETWORK, "::1", "fe80::1%eth0"])
def test_a_name_that_was_made_to_point_here_is_not(host: str, arrived_at: str) -> None:
    assert status(arrived_at, Host=host) == status(arrived_at, Host=host, Origin=f"http://{host}") == 421


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_site_is_not(origin: str) -> None:
    assert status(Host="127.0.0.1:8080", Origin=origin) == 403


def test_addresses_of_the_network_are_ours_only_where_we_listen_to_it() -> None:
    assert [status(at, Host=f"{NETWORK}:8080") for at in (LOOPBACK, "::1", NETWORK)] == [421, 421, 200]
    assert status(NETWORK, Host=socket.gethostname()) == 200


def test_exactly_one_host_is_wanted() -> None:
    twice = [(b"host", b"localhost"), (b"Host", b"evil.example")]
    assert [(refused(given, LOOPBACK) or (200,))[0] for given in ([], twice)] == [421, 421]


def test_the_guard_lets_no_permission_for_other_sites_through() -> None:
    assert asked({"host": "localhost"}) == [
        {"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Origin")]},
        {"type": "http.response.body", "body": b"hello"},
    ]
    assert [message.get("status") for message in asked({"host": "evil.example"})] == [421, None]
    assert asked({"host": "evil.example"}, "websocket")[0]["code"] == 1008


def asked(headers: dict[str, str], kind: str = "http") -> list[dict[str, Any]]:
    """What an application behind the guard sends that would permit everybody everything."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        permits = [(b"Access-Control-Allow-Origin", b"*"), (b"access-control-allow-credentials", b"true")]
        await send({"type": "http.response.start", "status": 200, "headers": [*permits, (b"vary", b"Origin")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "headers": raw, "server": (LOOPBACK, 8080)}
    asyncio.run(Guard(app)(scope, None, keep))
    return sent


# ---- the real servers


@pytest.fixture(scope="module", params=["f16", "tuned"])
def served(served_once: Callable[[str], Endpoint], request: pytest.FixtureRequest) -> Endpoint:
    """The GGUF in llama.cpp, the adapter over its base as LLaMA-Factory loads it."""
    return served_once(request.param)


HOSTILE = [
    ({"Host": "evil.example"}, 421),
    ({"Host": "127.0.0.1.evil.example"}, 421),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://localhost:1"}, 403),
]


@pytest.mark.parametrize(("headers", "expected"), HOSTILE)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_real_server_refuses_it_even_with_the_key(
    served: Endpoint, headers: dict[str, str], expected: int, method: str
) -> None:
    key = {"Authorization": f"Bearer {served.key}"}
    for given in (headers, headers | key):
        assert answer(served, method, given) == (expected, [])


def test_a_real_server_answers_us_and_permits_nobody_else(served: Endpoint) -> None:
    own = f"http://{urlsplit(served.url).netloc}"
    key = {"Authorization": f"Bearer {served.key}"}
    assert answer(served, "GET", key) == answer(served, "GET", key | {"Origin": own}) == (200, [])
    assert answer(served, "GET", {"Origin": own}) == (401, [])


def answer(served: Endpoint, method: str, headers: dict[str, str]) -> tuple[int, list[str]]:
    """Status, and the names of the headers that permit something to other sites."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
    path = "/v1/chat/completions" if method == "POST" else "/v1/models"
    asks = {"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
    try:
        connection.request(method, path, body="{}" if method == "POST" else None, headers=headers | asks)
        response = connection.getresponse()
        return response.status, [name for name in response.headers if name.lower().startswith("access-control-allow")]
    finally:
        connection.close()
