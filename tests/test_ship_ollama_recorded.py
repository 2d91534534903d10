"""The stand-in for Ollama is asked what a real one was asked, and answers in status, shape and words as that did."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.lib.files import read_json
from orchestrator.models.gguf import GgufModel
from orchestrator.runs.store import Run
from tests.fake_ollama import FakeOllama, Made, fake_ollama
from tests.gguf_text import with_template

RECORDED = read_json(Path(__file__).parent / "recorded/ollama.json")
WORDS = (
    "error", "rendered_template", "template", "status", "role", "done", "model", "system", "capabilities", "format",
    "parent_model", "object", "system_fingerprint", "parameters",
)  # fmt: skip
"""Keys whose values are compared, not only their kind: what the models themselves said is theirs."""
BLOBS = {"204 bytes": b"GGUF, and then nothing that llama.cpp could read", "14 bytes": b"this is no gguf"}


@pytest.fixture(scope="module")
def server(shipped_run: Run, thinking_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeOllama]:
    """The stand-in with the models of the recording: their templates and parameters over our tiny weights."""
    with fake_ollama(tmp_path_factory.mktemp("ollama")) as state:
        for name, of in RECORDED["models"].items():
            run = thinking_run if name == "think" else shipped_run
            digest = stored(state, run.folder / "export/tiny-f16.gguf", of["jinja"])
            parent = "hid-f16:latest" if name == "adv0-tools" else ""
            state.models[f"{name}:latest"] = Made(digest, None, of["template"], of["system"], parameters(of), parent)
        yield state


def stored(state: FakeOllama, gguf: Path, jinja: str) -> str:
    """The digest of a blob with the template of a recorded model, which writes its own BOS."""
    if jinja:
        found = re.search(r"<｜begin▁of▁sentence｜>", jinja)
        gguf = with_template(gguf, state.folder / "made.gguf", jinja, found[0] if found else None)
    digest = f"sha256:{hashlib.sha256(gguf.read_bytes()).hexdigest()}"
    state.blob(digest).write_bytes(gguf.read_bytes())
    return digest


def parameters(of: dict[str, Any]) -> dict[str, Any]:
    """From the lines of /api/show."""
    found: dict[str, Any] = {}
    for line in of["parameters"].splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(json.loads(value))
    return {key: value if key == "stop" else value[0] for key, value in found.items()}


def test_the_stand_in_answers_as_a_real_one_did(server: FakeOllama) -> None:
    different = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for exchange in RECORDED["exchanges"]:
            response = ask(client, exchange)
            lines = [json.loads(line) for line in response.text.split("\n") if line]
            found = [] if response.status_code == exchange["status"] else [f"status {response.status_code}"]
            found += differences(wanted(exchange), lines)
            different += [f"{exchange['title']}: {one}" for one in found]
    assert different == []
    assert len(RECORDED["exchanges"]) > 50


def ask(client: httpx.Client, exchange: dict[str, Any]) -> httpx.Response:
    request, path = exchange["request"], exchange["path"]
    if isinstance(request, str):  # a blob, whose bytes were not recorded
        content = BLOBS[request]
        if exchange["status"] == 200:  # it was there already
            client.post(f"/api/blobs/{digest(content)}", content=content)
            path = f"/api/blobs/{digest(content)}"
        return client.request(exchange["method"], path, content=content)
    if request and "files" in request:
        broken = BLOBS["204 bytes" if "broken" in exchange["title"] else "14 bytes"]
        request = {**request, "files": {"a.gguf": digest(broken)}}
    return (
        client.request(exchange["method"], path, json=request) if request else client.request(exchange["method"], path)
    )


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def wanted(exchange: dict[str, Any]) -> list[Any]:
    """The recorded lines; of a long stream some were left out, and the end."""
    return [line for line in exchange["answer"] if line != ""]


def differences(wanted: list[Any], given: list[Any]) -> Iterator[str]:
    if any(isinstance(line, str) for line in wanted):
        shapes = [shape(line) for line in given]
        yield from (f"no line like {line}" for line in wanted if isinstance(line, dict) and shape(line) not in shapes)
    elif len(wanted) != len(given):
        yield f"{len(given)} lines, {len(wanted)} recorded: {given}"
    else:
        for number, (one, other) in enumerate(zip(wanted, given, strict=True), 1):
            yield from compare(one, other, f"line {number}")


def shape(value: Any) -> Any:
    return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else type(value).__name__


def compare(wanted: Any, given: Any, where: str) -> Iterator[str]:
    key = where.rpartition(".")[2]
    if isinstance(wanted, dict) and isinstance(given, dict):
        if wanted.keys() != given.keys():
            yield f"{where} has {sorted(given)}, recorded {sorted(wanted)}"
        for name in wanted.keys() & given.keys():
            yield from compare(wanted[name], given[name], f"{where}.{name}")
    elif isinstance(wanted, list) and isinstance(given, list) and key == "models":
        if shape(wanted[0]) != shape(given[0]):
            yield f"{where}[0] is {given[0]}, recorded {wanted[0]}"
    elif key in WORDS and where != "line 1.details.family":
        if plain(wanted, key) != plain(given, key):
            yield f"{where} is {given!r}, recorded {wanted!r}"
    elif not isinstance(given, type(wanted)):
        yield f"{where} is {given!r}, recorded {wanted!r}"


def plain(value: Any, key: str) -> Any:
    """Digests are of bytes that are not ours, and Ollama writes parameters in no order."""
    if key == "parameters":
        return sorted(value.splitlines())
    return re.sub(r"[0-9a-f]{64}", "…", value) if isinstance(value, str) else value


def test_a_patched_gguf_is_read_by_llama_cpp(shipped_run: Run, tmp_path: Path) -> None:
    source = shipped_run.folder / "export/tiny-f16.gguf"
    with GgufModel(with_template(source, tmp_path / "a.gguf", "{{ '你好' }}", "<s>")) as made:
        assert (made.metadata("tokenizer.chat_template"), made.bos, made.adds_bos()) == ("{{ '你好' }}", "<s>", True)
        assert dict(made.answers([made.tokenize("Topic")], 2)).keys() == {0}
