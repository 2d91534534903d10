"""Who may come in: whoever has the key; and what a page may do: load nothing from anywhere else."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

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
            where = scope["path"] + (f"?{urlencode(query, doseq=True)}" if query else "")
            cookie = f"{self._cookie}={self._key}; HttpOnly; SameSite=Strict; Path=/".encode()
            await _answer(send, 303, b"", (b"location", quote(where, safe="/?&=%").encode()), (b"set-cookie", cookie))
        elif self._fits(self._given(scope["headers"])):
            await self._app(scope, receive, _with_headers(send))
        else:
            told = "Open the address that `orchestrator ui` printed: its key is missing here, or of an earlier start."
            await _answer(send, 401, told.encode())

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._key.encode())

    def _given(self, headers: list[tuple[bytes, bytes]]) -> str:
        for name, value in headers:
            try:
                if name.lower() == b"cookie" and (found := SimpleCookie(value.decode("latin-1")).get(self._cookie)):
                    return found.value
            except CookieError:
                continue
        return ""


async def _answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [kind, *HEADERS, *headers]})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Any) -> Any:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return sending
