"""Stages that take no time: each leaves what it promises, and the scores depend on the learning rate alone."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from orchestrator.lib import layout, process
from orchestrator.lib.files import write_json
from orchestrator.lib.step import Step

ROWS = 20
NO_WEIGHTS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file without a tensor."""


class FakeChild:
    """Ends with `code` after some seconds, having written its outputs unless it was stopped before."""

    pid = 1

    def __init__(self, step: Step, command: process.Command, seconds: float, code: int = 0) -> None:
        self._step, self._command, self._code = step, command, code
        self._until = time.monotonic() + seconds
        self.stopped = False

    def poll(self) -> int | None:
        if self.stopped:
            return -15
        if time.monotonic() < self._until:
            return None
        if self._code == 0:
            write_outputs(self._step, self._command.cwd)
        return self._code

    def stop(self) -> None:
        self.stopped = True


class FakeLaunch:
    """Starts fake children and remembers which; `fails` are stages of runs whose learning rate is in the set."""

    def __init__(self, seconds: float = 0.0, fails: frozenset[float] = frozenset()) -> None:
        self.seconds, self.fails = seconds, fails
        self.started: list[tuple[str, float]] = []
        self.environments: list[dict[str, str]] = []

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        rate = learning_rate(command.cwd)
        self.started.append((step.stage, rate))
        self.environments.append(dict(command.env))
        broken = step.stage == "train" and rate in self.fails
        if broken:
            command.log.parent.mkdir(parents=True, exist_ok=True)
            command.log.write_text("RuntimeError: CUDA out of memory\n", encoding="utf-8")
        return FakeChild(step, command, self.seconds, 1 if broken else 0)


def learning_rate(folder: Path) -> float:
    found = re.search(r"learning_rate: ([^\s},]+)", (folder / layout.SPEC).read_text(encoding="utf-8"))
    assert found is not None
    return float(found[1])


def correct_rows(rate: float) -> int:
    """1e-3 is the best; each power of ten away from it costs a quarter of the rows."""
    import math

    return max(0, ROWS - round(5 * abs(math.log10(rate) + 3)))


def write_outputs(step: Step, folder: Path) -> None:
    for path in step.expects:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(NO_WEIGHTS if path.endswith(".safetensors") else b"{}\n")
    if step.stage == "prepare":
        write_json(folder / layout.SERVING, {"tokens": {"longest": 60, "mean": 40.0}}, durable=False)
    if step.stage == "train":
        history = [{"loss": 1.0, "grad_norm": 1.0, "step": 1}]
        write_json(folder / "train/trainer_state.json", {"log_history": history}, durable=False)
        write_json(folder / "train/all_results.json", {"eval_loss": 1.0}, durable=False)
    if step.stage == "score":
        write_scores(folder, correct_rows(learning_rate(folder)))


def write_scores(folder: Path, right: int) -> None:
    rows = [
        {"id": str(n), "prompt": "标题", "label": "体育", "prediction": "体育" if n < right else "财经"}
        for n in range(ROWS)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / layout.predictions("tuned")).write_text(text, encoding="utf-8")
    value = 100 * right / ROWS
    figures = {"n": ROWS, "accuracy": {"value": value, "low": max(0.0, value - 10), "high": min(100.0, value + 10)}}
    write_json(folder / layout.summary("score"), {"metrics": {"tuned": figures}}, durable=False)
