"""A stand-in for the Hugging Face hub as models are downloaded from it, which goes silent after so many bytes.

See https://huggingface.co/docs/hub/api and https://huggingface.co/docs/huggingface_hub/guides/download.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.serving import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 4096


@dataclass
class FakeModelHub:
    """A repository, `org/model`, and what was asked of it."""

    files: Mapping[str, bytes]
    left: float = float("inf")
    """Bytes of files that are still sent; then every connection is closed without a word."""
    hangs: bool = False
    """Whether connections are left open instead, as of a network that is gone."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """File → how large it is said to be, where it is more than its content: weights of which the head alone is here."""
    url: str = ""
    silent: threading.Event = field(default_factory=threading.Event)
    """Set once it has gone silent."""
    sent: dict[str, int] = field(default_factory=dict)
    """File → bytes of it that went out."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(map(len, self.files.values()))

    def take(self, wanted: int) -> int:
        """How many of so many bytes may still go out."""
        with self.lock:
            granted = int(min(wanted, self.left))
            self.left -= granted
            return granted


def listed(name: str, content: bytes, size: int | None = None) -> dict[str, Any]:
    """An entry of a repository's tree."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return {"type": "file", "path": name, "size": size or len(content), "oid": blob.hexdigest()}


@contextmanager
def fake_model_hub(files: Mapping[str, bytes], sizes: Mapping[str, int] | None = None) -> Iterator[FakeModelHub]:
    """A running hub, stopped when the block ends."""
    hub = FakeModelHub(files, sizes=sizes or {})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_HEAD(self) -> None:
            self.reply(body=False)

        def do_GET(self) -> None:
            self.reply(body=True)

        def reply(self, body: bool) -> None:
            if hub.left <= 0:
                return self.go_silent()
            path = self.path.partition("?")[0]
            if path == "/api/models/org/model/revision/main":
                self.tell({"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]})
            elif path == f"/api/models/org/model/tree/{COMMIT}":
                self.tell([listed(name, content, hub.sizes.get(name)) for name, content in hub.files.items()])
            elif path.startswith(f"/org/model/resolve/{COMMIT}/"):
                self.send_file(path.rpartition("/")[2], body)
            else:
                self.send_error(404)

        def tell(self, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def send_file(self, name: str, body: bool) -> None:
            content = hub.files.get(name)
            if content is None:
                return self.absent()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start = int(asked[1]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            end = min(int(asked[2]) + 1 if asked and asked[2] else len(content), len(content))
            self.send_header("Content-Length", str(end - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.end_headers()
            if body:
                self.send_pieces(name, content[start:end])

        def absent(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_pieces(self, name: str, content: bytes) -> None:
            for first in range(0, len(content), PIECE):
                piece = content[first : first + PIECE]
                granted = hub.take(len(piece))
                self.wfile.write(piece[:granted])
                with hub.lock:
                    hub.sent[name] = hub.sent.get(name, 0) + granted
                if granted < len(piece):
                    return self.go_silent()

        def go_silent(self) -> None:
            hub.silent.set()
            self.close_connection = True
            while hub.hangs:
                time.sleep(0.01)

    with serving(Handler) as hub.url:
        try:
            yield hub
        finally:
            hub.hangs = False
