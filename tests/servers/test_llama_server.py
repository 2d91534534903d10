"""llama.cpp's own server over our GGUFs: prompts character by character, tokens, answers, thoughts in two parts."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from orchestrator.chat_template import llama_server
from orchestrator.lib import layout, process
from orchestrator.runs import store
from orchestrator.runs.store import Run
from tests.conftest import run_tool

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(llama_server.find() is None, reason="no llama-server")]
PROGRAM = """
import sys, threading, xllamacpp
wanted = xllamacpp.CommonParams()
wanted.model.path, wanted.use_jinja, wanted.n_ctx, wanted.n_parallel = sys.argv[1], True, 512, 1
wanted.warmup = wanted.fit_params = False
wanted.n_gpu_layers, wanted.port = 0, 0
if len(sys.argv) > 2:
    wanted.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(sys.argv[2], 1.0)]
server = xllamacpp.Server(wanted)
print("at " + server.listening_address, flush=True)
threading.Event().wait()
"""
SECONDS = 60.0


@contextmanager
def serving(folder: Path, *files: Path) -> Iterator[str]:
    """The address of a server over a GGUF, and an adapter over that; in a process of its own."""
    if llama_server.find() != llama_server.PACKAGE:
        pytest.skip("the answers are asked of xllamacpp")
    log = folder / "server.log"
    child = process.start(process.Command([sys.executable, "-c", PROGRAM, *map(str, files)], folder, log))
    deadline = time.monotonic() + SECONDS
    try:
        while not (told := [line[3:] for line in said(log).splitlines() if line.startswith("at ")]):
            assert child.poll() is None and time.monotonic() < deadline, said(log)[-2000:]
            time.sleep(0.1)
        yield told[0]
    finally:
        child.stop()


def said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""


def copied(run: Run, folder: Path) -> Run:
    return store.load(Path(shutil.copytree(run.folder, folder / "runs" / run.id)))


def asked(run: Run, url: str, folder: Path, limit: int) -> str:
    done = run_tool(("evaluate", "--endpoint", url, "--max-new-tokens", str(limit), "--concurrency", "1"), folder)
    assert done.code == 0, done.stderr
    return done.stderr


def answers(run: Run) -> list[str]:
    (kept,) = store.load(run.folder).record["endpoints"]
    return [json.loads(line)["prediction"] for line in (run.folder / kept["path"]).open(encoding="utf-8")]


def measured(run: Run, kind: str) -> list[str]:
    file = run.folder / layout.predictions(f"gguf-{kind}")
    return [json.loads(line)["prediction"] for line in file.open(encoding="utf-8")]


@pytest.mark.parametrize("kind", ["f16", "adapter"])
def test_it_answers_as_measured_to_the_prompts_of_training(shipped_run: Run, tmp_path: Path, kind: str) -> None:
    run = copied(shipped_run, tmp_path)
    names = ("base", "adapter") if kind == "adapter" else ("f16",)
    with serving(tmp_path, *(run.folder / layout.gguf("tiny", name) for name in names)) as url:
        told = asked(run, url, tmp_path, 4)
    assert "12 of 12 prompts are those of training, character by character" in told
    assert [one.strip() for one in answers(run)] == [one.strip() for one in measured(run, kind)]


def test_thoughts_come_back_apart(thinking_run: Run, tmp_path: Path) -> None:
    run = copied(thinking_run, tmp_path)
    with serving(tmp_path, run.folder / layout.gguf("tiny", "f16")) as url:
        told = asked(run, url, tmp_path, 19)
        question = json.loads((run.folder / layout.PROMPTS).open(encoding="utf-8").readline())["messages"]
        body = {"messages": question, "max_tokens": 19, "temperature": 0}
        message = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]
    assert "2 of 2 prompts are those of training, character by character" in told
    assert message["reasoning_content"].strip() == "The title is about money or companies."
    assert message["content"].strip() == "Business"


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, or not")
    with pytest.raises(AssertionError, match="failed to load model"), serving(tmp_path, tmp_path / "broken.gguf"):
        pytest.fail("it serves a file that is no model")
