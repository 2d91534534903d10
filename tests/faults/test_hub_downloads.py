"""A model of the hub whose download is cut anywhere, or killed, is not taken for a whole one, and is had the next time.

The client is the real one; it runs in a process of its own, which reads its settings when it starts.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.models import hub
from tests.fake_model_hub import COMMIT, FakeModelHub, fake_model_hub

BASE = "hf:org/model"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
PERCENTS = [pytest.param(cut, marks=() if cut in (10, 50, 90) else pytest.mark.nightly) for cut in range(10, 100, 10)]
FETCH = """
import time
time.sleep = lambda seconds: None  # the client waits a second before each of its attempts
from orchestrator.lib.errors import MissingError
from orchestrator.models.sources import hub
try:
    print(hub.fetch("hf:org/model"))
except MissingError as error:
    raise SystemExit(f"{error.message}\\n{error.hint}")
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModelHub]:
    chance = random.Random(0)
    weights = {name: chance.randbytes(100_000) for name in SHARDS}
    index = json.dumps({"weight_map": {"a.weight": SHARDS[0], "b.weight": SHARDS[1]}}).encode()
    files = {"config.json": b'{"model_type": "llama"}', **weights, "model.safetensors.index.json": index}
    with fake_model_hub(files | {"tokenizer.json": chance.randbytes(50_000)}) as server:
        settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
        for name, value in (settings | {"ORCHESTRATOR_CACHE": str(tmp_path / "cache")}).items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


def fetch() -> tuple[int, str]:
    """Exit code and last lines of what is said."""
    process = start()
    said, wrong = process.communicate(timeout=120)
    return process.returncode, said or wrong


def require_whole(server: FakeModelHub) -> None:
    code, said = fetch()
    assert code == 0, said
    folder = hub.cached(BASE)
    assert folder is not None and folder.name == COMMIT
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == server.files


@pytest.mark.parametrize("percent", PERCENTS)
def test_a_cut_download_is_not_believed_and_the_next_one_is_whole(served: FakeModelHub, percent: int) -> None:
    served.left = served.size * percent // 100
    code, said = fetch()
    assert code == 1 and f"cannot download {BASE}: " in said and "HF_ENDPOINT" in said
    assert hub.cached(BASE) is None
    whole = {name for name, sent in served.sent.items() if sent == len(served.files[name])}

    served.left = float("inf")
    require_whole(served)
    assert {name for name in whole if served.sent[name] > len(served.files[name])} == set()  # nothing twice


def test_a_killed_download_is_not_believed(served: FakeModelHub) -> None:
    served.left, served.hangs = served.size * 0.8, True
    process = start()
    assert served.silent.wait(60)
    process.kill()
    process.communicate()
    assert hub.cached(BASE) is None

    served.left, served.hangs = float("inf"), False
    require_whole(served)


def test_what_another_tool_downloaded_in_part_is_not_believed(served: FakeModelHub) -> None:
    require_whole(served)
    folder = hub.cached(BASE)
    assert folder is not None
    (folder / SHARDS[1]).unlink()
    assert hub.cached(BASE) is None
    require_whole(served)
