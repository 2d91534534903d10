"""A running Ollama: where it is, and whether it is one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.lib.errors import InputError, MissingError, reason
from orchestrator.serving.http import Endpoint, http_client, in_url, is_here

if TYPE_CHECKING:
    from ollama import Client

PORT = 11434
KEY = "OLLAMA_API_KEY"
"""The variable that holds the key of an Ollama that asks for one, as ollama.com's does."""


@dataclass(frozen=True, slots=True)
class Ollama:
    """A running server."""

    url: str
    client: Client
    version: str
    key: str | None = None

    def endpoint(self, model: str) -> Endpoint:
        """One of its models, to ask."""
        return Endpoint(self.url, "ollama", model, self.key)


def address(host: str | None = None) -> str:
    """Ollama's URL: the one given, else OLLAMA_HOST, else the default port of this machine.

    Raises InputError for what is none.
    """
    text = host or os.environ.get("OLLAMA_HOST") or "127.0.0.1"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or (443 if parts.scheme == "https" else PORT)
    except ValueError as error:
        raise InputError(
            f"{text!r} is no address of an Ollama: {error}", "Write it like 127.0.0.1:11434 or https://example.org."
        ) from None
    name = "127.0.0.1" if parts.hostname in (None, "0.0.0.0", "::") else parts.hostname
    return f"{parts.scheme}://{in_url(str(name))}:{port}{parts.path.rstrip('/')}"


def connect(host: str | None = None) -> Ollama:
    """A running Ollama. Raises what `address` and `version` raise."""
    url, key = address(host), os.environ.get(KEY)
    address()  # the client reads OLLAMA_HOST as well, as soon as it is imported
    from ollama import Client

    found = version(Endpoint(url, "ollama", "", key, timeout=30.0))
    return Ollama(url, Client(url, trust_env=not is_here(url)), found, key)


def version(server: Endpoint) -> str:
    """The version of an Ollama. Raises MissingError when there is none, or something else in its place."""
    import httpx

    nobody = f"no Ollama at {server.url}"
    try:
        with http_client(server) as client:
            response = client.get(f"{server.url}/api/version")
    except httpx.TransportError as error:
        hint = "Start it with `ollama serve`, or set OLLAMA_HOST."
        if "certificate" in str(error).lower():
            hint = "Name the authority that signed its certificate with SSL_CERT_FILE."
        raise MissingError(f"{nobody}: {reason(error)}", hint) from None
    if response.is_redirect:
        raise MissingError(f"{nobody}: it sends on to {response.headers['Location']}", "Put that into OLLAMA_HOST.")
    if response.status_code in (401, 403):
        raise MissingError(f"{nobody} without a key: it answers {response.status_code}", f"Set {KEY}.")
    try:
        return str(response.json()["version"])
    except (ValueError, KeyError, TypeError):
        kind = response.headers.get("Content-Type", "").partition(";")[0] or "something else"
        raise MissingError(
            f"{nobody}: it answers {response.status_code} with {kind}, not with a version",
            "Is a proxy in front of it, or another server at that address? Set OLLAMA_HOST to Ollama itself.",
        ) from None
