"""A chain leaves the same files, byte for byte, when it is run again, warm or as it is, and with `speed: auto` the same
losses and answers; and none of them holds a secret of the environment, though every program that it starts prints them
all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.lib import files
from tests.conftest import Result, make_project, run_tool, write_tree
from tests.planted import SECRETS, leaks, shown

pytestmark = pytest.mark.slow

FASTER = "disable_gradient_checkpointing: true"
ADAPTER = "train/adapter_model.safetensors"
SAME = (
    "data/train.json",
    "data/prompts.jsonl",
    ADAPTER,
    "train/tokenizer.json",
    "evaluation/base.jsonl",
    "evaluation/tuned.jsonl",
    "export/Modelfile",
    "export/tiny-f16.gguf",
    "export/tiny-q8_0.gguf",
    "evaluation/gguf-q8_0.jsonl",
    "evaluation/summary-judge.json",
)
BETRAYER = """
import os, sys
if sys.orig_argv[1:3] != ["-m", "orchestrator"]:  # each program that the tool starts, but not the tool
    print(f"{sys.orig_argv} betrays {dict(os.environ)}", file=sys.stderr, flush=True)
    if os.environ.get("FAIL") in sys.orig_argv:
        raise SystemExit(f"RuntimeError: {dict(os.environ)}")
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A chain's run in forked processes."""
    return finished(make_project(tmp_path_factory.mktemp("warm"), tiny_model), "execution=warm", "speed=off")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A short training and its answers, with all that `speed: auto` chooses."""
    return finished(short(tmp_path_factory.mktemp("fast"), tiny_model), "execution=warm", phase="evaluate")


def short(folder: Path, model: Path) -> Path:
    """Few steps, so that rounding stays rounding, in micro-batches that nobody chose."""
    spec = make_project(folder, model) / "spec.yaml"
    text = spec.read_text(encoding="utf-8").replace("num_train_epochs: 6", "num_train_epochs: 2")
    own = [line for line in text.splitlines() if "per_device" not in line and "accumulation" not in line]
    spec.write_text("\n".join(own), encoding="utf-8")
    return folder


class Plainly:
    """A chain run by llamafactory-cli as it is, among secrets, and all that could be seen of it."""

    def __init__(self, project: Path, lib: Path) -> None:
        write_tree(lib, {"sitecustomize.py": BETRAYER})
        self.project, self.env = project, {**SECRETS, "PYTHONPATH": str(lib)}
        with command_lines() as self.seen:
            self.run = finished(project, "execution=cli", "speed=off", env=self.env)


@pytest.fixture(scope="module")
def plainly(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Plainly:
    return Plainly(make_project(tmp_path_factory.mktemp("cli"), tiny_model), tmp_path_factory.mktemp("lib"))


def test_the_same_files(warm: Path, plainly: Plainly) -> None:
    cli = plainly.run
    assert [FASTER in configuration(run) for run in (warm, cli)] == [False, False]
    assert {path: files.sha256(warm / path) for path in SAME} == {path: files.sha256(cli / path) for path in SAME}
    assert losses(warm) == losses(cli)


def test_fast_gives_the_same_losses_and_answers(fast: Path, tmp_path: Path, tiny_model: Path) -> None:
    plain = finished(short(tmp_path, tiny_model), "speed=off", phase="evaluate")
    assert [FASTER in configuration(run) for run in (fast, plain)] == [True, False]
    assert "per_device_train_batch_size: 8" in configuration(fast)
    assert '"by_length": true' in (fast / "configs/train-speed.json").read_text(encoding="utf-8")
    assert losses(fast) == pytest.approx(losses(plain), abs=1e-5)
    for answers in ("evaluation/base.jsonl", "evaluation/tuned.jsonl"):
        assert (fast / answers).read_text(encoding="utf-8") == (plain / answers).read_text(encoding="utf-8")


def test_the_same_adapter_again(fast: Path, tmp_path: Path, tiny_model: Path) -> None:
    again = finished(short(tmp_path / "另一个 项目", tiny_model), "execution=warm", phase="train")
    assert files.sha256(again / ADAPTER) == files.sha256(fast / ADAPTER)


def test_no_secret_is_left_where_every_program_prints_them_all(plainly: Plainly) -> None:
    logs = [log.read_text(encoding="utf-8") for log in plainly.run.glob("logs/*.log")]
    assert sum("betrays" in log for log in logs) >= 8  # they were printed, and taken out
    assert run_tool(("report", "--json"), plainly.project, plainly.env).code == 0
    assert leaks(plainly.project) == []


def test_no_secret_was_seen_in_a_command_line(plainly: Plainly) -> None:
    assert any("llamafactory-cli" in line for line in plainly.seen)
    assert shown("\n".join(plainly.seen)) == []


CALLS = [("plan", "-v"), ("plan", "--json"), ("runs", "list", "--json"), ("runs", "show"), ("doctor",), ("verify",)]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_no_command_says_a_secret(plainly: Plainly, call: tuple[str, ...]) -> None:
    answer = run_tool(call, plainly.project, plainly.env)
    assert answer.stdout and shown(answer.stdout + answer.stderr) == []


def test_no_secret_is_in_what_a_failed_training_says(plainly: Plainly) -> None:
    answer = run_tool(
        ("train", "--force", "train", *given("execution=cli")),
        plainly.project,
        plainly.env | {"FAIL": "configs/train-speed.json"},
    )
    assert answer.code == 4 and "RuntimeError" in answer.stderr
    assert shown(answer.stdout + answer.stderr) == leaks(plainly.project) == []


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """The command lines of all programs below this one, as `ps` shows them meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.3):
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.add(" ".join(child.cmdline()))
                except psutil.Error:
                    continue

    reporter = threading.Thread(target=look)
    reporter.start()
    try:
        yield seen
    finally:
        over.set()
        reporter.join()


def configuration(run: Path) -> str:
    return (run / "configs/train.yaml").read_text(encoding="utf-8")


def given(*sets: str) -> list[str]:
    return [part for one in (*sets, "data.accept=[leakage_near]") for part in ("--set", one)]


def finished(project: Path, *sets: str, phase: str = "run", env: dict[str, str] | None = None) -> Path:
    """The run's folder. A random model may miss the gate (5); both ways must then miss it in the same words."""
    done: Result = run_tool((phase, "-q", *given(*sets)), project, env)
    assert done.code in (0, 5), done.stderr
    assert "starting each by itself" not in done.stderr
    assert shown(done.stdout + done.stderr) == []
    (run,) = (path.parent for path in (project / "runs").glob("*/run.json"))
    return run


def losses(run: Path) -> list[float]:
    history = files.read_json(run / "train" / "trainer_state.json")["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]
