"""push against a real Ollama: what the stand-in is held against, and what only a real one can show."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, InputError, StageError
from orchestrator.lib.files import read_json, sha256
from orchestrator.runs import store
from orchestrator.runs.store import Run
from orchestrator.serving import bundle, ollama
from orchestrator.serving.ollama_server import Ollama
from orchestrator.serving.served import require_gate
from tests.servers.conftest import NAMES, names, started
from tests.test_ship_ollama import change_gguf, jinja
from tests.test_ship_ollama_recorded import RECORDED, differences

pytestmark = pytest.mark.nightly


def quietly(done: int, total: int) -> None:
    return


def copy(run: Run, folder: Path) -> Run:
    return store.load(Path(shutil.copytree(run.folder, folder / "runs" / run.id)))


@pytest.fixture
def run(shipped_run: Run, tmp_path: Path) -> Run:
    """A copy that the test may change."""
    return copy(shipped_run, tmp_path)


def test_prompts_and_answers_are_those_of_training(
    pushed: tuple[Run, str], tmp_path: Path, real_ollama: Ollama
) -> None:
    run, kind = copy(pushed[0], tmp_path), pushed[1]
    told = ollama.ship(run, kind, f"{NAMES}-{run.id[-6:]}-{kind}", real_ollama, quietly)
    prompts = len((run.folder / layout.PROMPTS).read_text(encoding="utf-8").split("\n")) - 1
    assert (told["rows"], told["equal_counts"], told["agreement"]) == (prompts, told["counted"], 1.0)
    assert told["equal_texts"] == told["texts"]
    if read_json(run.folder / layout.SERVING)["thinking"]:
        assert "thinking" in told["capabilities"]


def test_what_ollama_makes_of_the_bundle_is_the_same(run: Run, tmp_path: Path, real_ollama: Ollama) -> None:
    program = shutil.which("ollama")
    if program is None:
        pytest.skip("no `ollama` on PATH to read a Modelfile with")
    name, folder = f"{NAMES}-bundle", tmp_path / "bundle"
    bundle.write(run, "f16", name, folder)
    env = {**os.environ, "OLLAMA_HOST": real_ollama.url}
    subprocess.run([program, "create", name, "-f", "Modelfile"], cwd=folder, env=env, check=True, capture_output=True)
    require_gate(ollama.ask(run, "f16", name, real_ollama), name, 1.0)


def test_one_changed_character_is_named(run: Run, real_ollama: Ollama) -> None:
    change_gguf(run, "{# <think></think> #}" + jinja(run).replace("|im_start|>user", "|im_start|>User"))
    with pytest.raises(GateError) as caught:
        ollama.ship(run, "f16", f"{NAMES}-changed", real_ollama, quietly)
    assert ": 'User\\nTopic: cup jacket e', in training 'user\\nTopic: cup jacket e'" in caught.value.message
    assert "Ollama used the template inside the GGUF" in caught.value.message


def test_a_model_of_that_name_is_kept(run: Run, real_ollama: Ollama) -> None:
    name = f"{NAMES}-there"
    ollama.ship(run, "f16", name, real_ollama, quietly)
    real_ollama.client.create(model=name, from_=name, system="mine")
    said = ollama.ship(run, "f16", name.upper(), real_ollama, quietly)["done"]
    kept = next(one for one in names(real_ollama) if f"{name}:kept-" in one)
    assert f"it is now {kept}" in said
    assert real_ollama.client.show(kept).modelfile.count("mine") == 1


def test_a_broken_gguf_is_refused_in_ollamas_words(run: Run, real_ollama: Ollama) -> None:
    (run.folder / layout.gguf("tiny", "f16")).write_bytes(b"GGUF" + b"\0" * 300)
    with pytest.raises((StageError, InputError), match="Ollama refused"):
        ollama.push(run, "f16", f"{NAMES}-broken", real_ollama, quietly)
    assert not [one for one in names(real_ollama) if "broken" in one]


def test_what_was_killed_in_mid_upload_is_sent_anew(run: Run, real_ollama: Ollama) -> None:
    file = run.folder / layout.gguf("tiny", "f16")
    file.write_bytes(file.read_bytes() + b"\0" * 32)  # bytes that no other test has sent
    at = urlsplit(real_ollama.url)
    with socket.create_connection((str(at.hostname), at.port or 80)) as half:
        head = f"POST /api/blobs/sha256:{sha256(file)} HTTP/1.1\r\nHost: {at.netloc}\r\n"
        half.sendall(f"{head}Content-Length: {file.stat().st_size}\r\n\r\n".encode() + file.read_bytes()[: 1 << 20])
    ollama.push(run, "f16", f"{NAMES}-again", real_ollama, quietly)
    assert ollama.ask(run, "f16", f"{NAMES}-again", real_ollama).agreement == 1.0


def test_a_full_disk_is_told(run: Run, tmp_path: Path) -> None:
    with small_disk() as models, started(models) as server:
        with pytest.raises(StageError, match=r"no space left on device|broke off"):
            ollama.ship(run, "f16", f"{NAMES}-full", server, quietly)
        assert names(server) == set()


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(models)], capture_output=True)
        if mounted.returncode:
            pytest.skip("no right to make a small disk")
        try:
            yield models
        finally:
            subprocess.run(["umount", "-l", str(models)], check=True)


@pytest.mark.parametrize(
    "title", ["a bad name", "create without anything", "chat with an unknown model", "delete again"]
)
def test_its_words_are_those_that_were_recorded(title: str, real_ollama: Ollama) -> None:
    """A newer server that says something else shows here first, and the stand-in is to follow."""
    exchange: dict[str, Any] = next(one for one in RECORDED["exchanges"] if one["title"] == title)
    with httpx.Client(base_url=real_ollama.url, timeout=60, trust_env=False) as client:
        response = client.request(exchange["method"], exchange["path"], json=exchange["request"])
    assert response.status_code == exchange["status"]
    assert list(differences(exchange["answer"], [response.json()])) == []
