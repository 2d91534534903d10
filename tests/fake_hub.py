"""A stand-in for the Hugging Face hub and for ModelScope: what their clients say to create a repository and to commit.

See https://huggingface.co/docs/hub/api and Git LFS's batch API (git-lfs/docs/api/batch.md).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.serving import serving


@dataclass
class FakeHub:
    """What the server was told."""

    token: str = "hf_secret"
    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """sha256 → content, of what came through LFS."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path → content, of what was committed."""
    messages: list[str] = field(default_factory=list)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A running hub, stopped when the block ends."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_POST(self) -> None:
            self.reply()

        def do_PUT(self) -> None:
            self.reply()

        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            if not path.startswith("/lfs/") and self.headers.get("Authorization") != f"Bearer {hub.token}":
                status, value = 401, {"error": "Invalid credentials in Authorization header"}
            else:
                status, value = answer(hub, path, body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as hub.url:
        yield hub


def answer(hub: FakeHub, path: str, body: bytes) -> tuple[int, Any]:
    if path.startswith("/lfs/"):
        hub.large[path.removeprefix("/lfs/")] = body
        return 200, {}
    if path == "/api/repos/create":
        return create(hub, json.loads(body))
    if path == "/api/validate-yaml":
        return 200, {"warnings": [], "errors": []}
    if path.endswith("/preupload/main"):
        sizes = {file["path"]: file["size"] for file in json.loads(body)["files"]}
        modes = {name: "lfs" if name.endswith((".gguf", ".safetensors")) else "regular" for name in sizes}
        return 200, {"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]}
    if path.endswith("/info/lfs/objects/batch"):
        objects = [offered(hub, one) for one in json.loads(body)["objects"]]
        return 200, {"transfer": "basic", "objects": objects, "Data": {"objects": objects}}
    if path.endswith("/commit/main"):
        return commit(hub, path, body)
    if path.startswith("/api/v1/"):
        return modelscope(hub, path.removeprefix("/api/v1/"), json.loads(body))
    return 404, {"error": f"no {path}"}


def modelscope(hub: FakeHub, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
    """ModelScope's API, whose answers lie in `Data`."""
    if path == "models":
        name = f"{asked['Path']}/{asked['Name']}"
        if name in hub.private:
            return 409, {"Code": 10020101002, "Success": False, "Message": "model already exists"}
        hub.private[name] = asked["Visibility"] == 1
        return 200, {"Code": 200, "Success": True, "Data": {"Name": name}}
    if path.endswith("/commit/master"):
        hub.messages.append(asked["commit_message"])
        for action in asked["actions"]:
            content = hub.large[action["sha256"]] if action["type"] == "lfs" else base64.b64decode(action["content"])
            hub.files[action["path"]] = content
        return 200, {"Code": 200, "Success": True, "Data": {"oid": "1"}}
    return 404, {"Code": 404, "Success": False, "Message": f"no {path}"}


def create(hub: FakeHub, asked: dict[str, Any]) -> tuple[int, Any]:
    name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
    known = name in hub.private
    hub.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
    return (409 if known else 200), {"url": f"{hub.url}/{name}", "error": "You already created this repo"}


def offered(hub: FakeHub, one: dict[str, Any]) -> dict[str, Any]:
    """Nothing to do for a file that is there already, else where to put it."""
    if one["oid"] in hub.large:
        return one
    return {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}}


def commit(hub: FakeHub, path: str, body: bytes) -> tuple[int, Any]:
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            hub.messages.append(value["summary"])
        elif entry["key"] == "file":
            hub.files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            content = hub.large[value["oid"]]
            assert hashlib.sha256(content).hexdigest() == value["oid"]
            hub.files[value["path"]] = content
    repository = path.removeprefix("/api/models/").removesuffix("/commit/main")
    return 200, {"commitUrl": f"{hub.url}/{repository}/commit/1", "commitOid": "1", "hookOutput": ""}
