"""Real servers: one that is there already, or one that is started for the tests and ended after them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat_template.source import template_for_model
from orchestrator.lib import process
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json, write_json
from orchestrator.runs.store import Run
from orchestrator.serving import ollama_server
from orchestrator.serving.ollama_server import Ollama
from tests.conftest import WORDS, make_project, write_tree
from tests.shipped_run import run_of

NAMES = f"orchestrator-test-{os.getpid()}"
"""Starts the names of all models that the tests make."""
BASES = [path.name for path in sorted(Path(os.environ.get("MINIATURES", os.devnull)).glob("*-*"))]
"""Models to train on and push besides: of MINIATURES, a folder of base models whose names LLaMA-Factory knows."""
ABSENT = "no real Ollama: set OLLAMA_HOST to one, or put `ollama` on PATH"
START_SECONDS = 60.0
SYSTEM = "你是一个“助手”。\nBe brief."


@pytest.fixture(scope="session")
def real_ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """A real Ollama, which has afterwards the models that it had before."""
    with the_server(tmp_path_factory.mktemp("ollama")) as server:
        before = names(server)
        yield server
        for name in names(server) - before:
            assert NAMES in name, f"{name} was made with a name that is not the tests' own"
            server.client.delete(name)
        assert names(server) == before


@contextmanager
def the_server(folder: Path) -> Iterator[Ollama]:
    """The one at OLLAMA_HOST, else one of our own on a free port with its own model folder; skips without either."""
    if os.environ.get("OLLAMA_HOST"):
        try:
            yield ollama_server.connect()
        except MissingError as error:
            pytest.skip(f"{error.message} (OLLAMA_HOST)")
        return
    with started(folder) as server:
        yield server


@contextmanager
def started(models: Path) -> Iterator[Ollama]:
    """An Ollama of our own, ended when the block ends."""
    program = shutil.which("ollama")
    if program is None:
        pytest.skip(ABSENT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    env = {"OLLAMA_HOST": address, "OLLAMA_MODELS": str(models), "OLLAMA_NUM_PARALLEL": "1", "HOME": str(models.parent)}
    log = models.parent / "ollama.log"
    child = process.start(process.Command((program, "serve"), models.parent, log, env))
    try:
        yield until_up(address, log)
    finally:
        child.stop()


def until_up(address: str, log: Path) -> Ollama:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return ollama_server.connect(address)
        except MissingError:
            if time.monotonic() > deadline:
                raise AssertionError(log.read_text(encoding="utf-8")[-2000:]) from None
            time.sleep(0.2)


def names(server: Ollama) -> set[str]:
    return {str(model.model) for model in server.client.list().models}


@pytest.fixture(scope="session")
def talking_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of conversations in Chinese and English, with a system text and earlier turns, and an empty thought."""
    folder = tmp_path_factory.mktemp("talking")
    rows = [talk(number) for number in range(15)]
    spec = f"""\
name: tiny
model: {{base: "{tiny_model}", template: qwen3}}
data: {{train: train.jsonl, eval: eval.jsonl, accept: [leakage_near]}}
train: {{cutoff_len: 256}}
evaluate: {{max_new_tokens: 2, baseline: false}}
export: {{gguf: [f16], gate: {{min_agreement: 0.9, max_accuracy_drop: 1.0}}}}
"""
    tree = {"spec.yaml": spec, "train.jsonl": "\n".join(rows[:12]) + "\n", "eval.jsonl": "\n".join(rows[12:]) + "\n"}
    return run_of(write_tree(folder, tree), tiny_model, ())


def talk(number: int) -> str:
    """A row: system text, a first question with its answer, and another."""
    word = WORDS.split()[number]
    first, last = f"“{word}”是什么意思？🙂 {{{{ x }}}}", f"  and {word * 2}\u2028\nin English?"
    turns = [("system", SYSTEM), ("user", first), ("assistant", "好。"), ("user", last), ("assistant", "Paris")]
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}, ensure_ascii=False)


@pytest.fixture(params=["shipped f16", "shipped adapter", "thinking f16", "talking f16", *BASES])
def pushed(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run, and which of its GGUFs."""
    which, _, kind = request.param.partition(" ")
    if kind:
        return request.getfixturevalue(f"{which}_run"), kind
    return run_of_base(Path(os.environ["MINIATURES"]) / which, tmp_path_factory.mktemp("miniature")), "f16"


def run_of_base(source: Path, folder: Path) -> Run:
    """A run over a copy of a base, whose tokenizer transformers is told to load as it is."""
    base = folder / source.name
    shutil.copytree(source, base, copy_function=shutil.copyfile)
    config = read_json(base / "tokenizer_config.json")
    write_json(base / "tokenizer_config.json", {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    template = f"model.template={template_for_model(source.name)}"
    return run_of(make_project(folder, base), base, (template, "export.gguf=[f16]", "evaluate.baseline=false"))
