"""Who may talk to a server of ours: no page of another site, whatever name it has made point to this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketClose

Headers = Iterable[tuple[bytes, bytes]]
HOST = re.compile(r"([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?")
"""RFC 9112: a name or an address, and a port where it is not the usual one."""


class Guard:
    """ASGI middleware that refuses what a browser sends on behalf of another site.

    A page elsewhere can reach a server here in two ways: with a request across sites, which its `Origin` gives away,
    or under a name of its own that it lets point to this machine (DNS rebinding), which the `Host` gives away. It goes
    round everything else, so that no answer permits other sites anything (`Access-Control-Allow-Origin: *`) either.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass a request of our own on, and answer any other with 403 or 421."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif refusal := refused(scope["headers"], (scope.get("server") or ("127.0.0.1",))[0]):
            status, reason = refusal
            websocket = scope["type"] == "websocket"
            answer = WebSocketClose(1008, reason) if websocket else PlainTextResponse(reason, status)
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, _without_permits(send))


def refused(headers: Headers, arrived_at: str) -> tuple[int, str] | None:
    """Status and reason for a request that came in at an address of this machine; None for one to be answered."""
    given = [(name.lower(), value.decode("latin-1")) for name, value in headers]
    hosts = [value for name, value in given if name == b"host"]
    if len(hosts) != 1 or not _is_own(hosts[0], arrived_at):
        return 421, "this server answers to localhost, its address and the name of its machine only"
    own = (f"http://{hosts[0]}", f"https://{hosts[0]}")
    foreign = [value for name, value in given if name == b"origin" and value not in own]
    return (403, "this server answers no page of another site") if foreign else None


def _is_own(host: str, arrived_at: str) -> bool:
    """Whether a Host header names this machine. An address cannot be rebound; a name can, unless it is ours.

    The port is left alone: a tunnel may have another one at its far end.
    """
    if not (named := HOST.fullmatch(host)):
        return False
    try:
        address = ip_address(named[1].strip("[]"))
    except ValueError:
        return named[1].lower() in ("localhost", socket.gethostname().lower())
    return address.is_loopback or not ip_address(arrived_at).is_loopback


def _without_permits(send: Any) -> Any:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [
                pair for pair in message.get("headers", ()) if not pair[0].lower().startswith(b"access-control-allow")
            ]
            message = {**message, "headers": kept}
        await send(message)

    return sending
