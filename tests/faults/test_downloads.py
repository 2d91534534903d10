"""A download that is cut anywhere leaves nothing that is believed, and the next attempt brings the right bytes."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib.errors import MissingError
from orchestrator.lib.fetch import Pin, download
from orchestrator.lib.files import sha256
from tests.serving import serving

NAME = "thing-1-py3-none-any.whl"
PERCENTS = [pytest.param(cut, marks=() if cut in (10, 50, 90) else pytest.mark.nightly) for cut in range(10, 100, 10)]


class Index:
    """A package index with one wheel, of which it sends only the first part while `percent` is below 100."""

    def __init__(self, folder: Path) -> None:
        self.content = wheel(folder / NAME)
        self.pin = Pin("thing==1", NAME, sha256(folder / NAME), len(self.content))
        self.percent = 100

    def answer(self, path: str) -> tuple[str, bytes]:
        """Content type and all the bytes that should come."""
        if path.endswith(".whl"):
            return "application/octet-stream", self.content
        return "text/html", f'<!DOCTYPE html><html><body><a href="/{NAME}">{NAME}</a></body></html>'.encode()


def wheel(path: Path) -> bytes:
    """A wheel of a megabyte that cannot be compressed."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/weights.gguf", random.Random(0).randbytes(1 << 20))
        archive.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        archive.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.dist-info/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    served = Index(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            return

        def do_GET(self) -> None:
            kind, content = served.answer(self.path)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            whole = kind == "text/html"
            self.wfile.write(content if whole else content[: len(content) * served.percent // 100])

    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Handler) as url:
        settings = {"INDEX_URL": f"{url}/simple", "CONFIG_FILE": "/dev/null"}
        for name, value in (settings | {"RETRIES": "0", "NO_CACHE_DIR": "1", "RESUME_RETRIES": "0"}).items():
            monkeypatch.setenv(f"PIP_{name}", value)
        yield served


@pytest.mark.parametrize("percent", PERCENTS)
def test_a_cut_download_is_not_believed_and_the_next_one_is_whole(index: Index, tmp_path: Path, percent: int) -> None:
    cache = tmp_path / "cache"
    index.percent = percent
    with pytest.raises(MissingError) as raised:
        download(index.pin, cache)
    assert "thing" in raised.value.message and "try again" in raised.value.hint
    assert list(cache.iterdir()) == []

    index.percent = 100
    assert download(index.pin, cache).read_bytes() == index.content
    assert [path.name for path in cache.iterdir()] == [NAME]


def test_a_broken_wheel_is_refused(index: Index, tmp_path: Path) -> None:
    index.content = index.content[: len(index.content) // 2]
    with pytest.raises(MissingError):
        download(index.pin, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
