"""Who may come in: whoever has the key; and what a page may do: load nothing from anywhere else."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

COOKIE = "orchestrator-key"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with `no-referrer` Chromium sends a form with `Origin: null`
    (b"cache-control", b"no-store"),
)
CLOSED = "Open the address that `orchestrator ui` printed: its key is missing here, or is from an earlier start."


class Door:
    """ASGI middleware: asks for the key, which a cookie carries once the address with `?key=` was opened, and sets
    the headers of every answer."""

    def __init__(self, app: Any, key: str, port: int) -> None:
        self._app, self._key, self._cookie = app, key, f"{COOKIE}-{port}"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass on what has the key, trade a key in the address for a cookie, and refuse all else with 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if self._fits(query.pop("key", [""])[0]):
            where = quote(scope["path"]) + (f"?{urlencode(query, doseq=True)}" if query else "")
            opened: Response = RedirectResponse(where, 303)
            opened.set_cookie(self._cookie, self._key, httponly=True, samesite="strict")
            await opened(scope, receive, _with_headers(send))
        elif self._fits(HTTPConnection(scope).cookies.get(self._cookie, "")):
            await self._app(scope, receive, _with_headers(send))
        else:
            await PlainTextResponse(CLOSED, 401)(scope, receive, _with_headers(send))

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._key.encode())


def _with_headers(send: Any) -> Any:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return sending
