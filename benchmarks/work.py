"""The jobs that are measured, and what is needed to do the same by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import ORCHESTRATOR, Bench, run
from orchestrator.lib.files import read_json
from orchestrator.models.speed import MICRO
from orchestrator.spec.sections import DEFAULTS

OPEN_GATE = "export.gate={min_agreement: 0.0, max_accuracy_drop: 1.0}"
ALL_GGUF = "export.gguf=[f16, q8_0, q6_k, q5_k_m, q5_0, q4_k_m, q4_0, q3_k_m]"


@dataclass(frozen=True, slots=True)
class Job:
    """A variant of the shipped spec.yaml."""

    name: str
    sets: tuple[str, ...]
    quantisations: tuple[str, ...] = ()
    """Besides f16."""
    baseline: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


SHORT = (
    "data.max_samples=48",
    "train.num_train_epochs=1",
    "train.logging_steps=1",
    "evaluate.better_than=[]",
    OPEN_GATE,
)
NEWS_SMALL = Job("small", (*SHORT, ALL_GGUF))
UNJUDGED = ("evaluate.general=false", "evaluate.confidence=false", "evaluate.divergence=false", "export.importance=off")
"""What is known of files beyond their answers; the benchmark `judge` says what it takes."""
BY_HAND = ("evaluate.prompted=false", *UNJUDGED)
"""What nobody does by hand is left out."""
CHAIN = Job("chain", (*SHORT, *BY_HAND, "export.gguf=[f16, q8_0, q4_k_m]"), ("q8_0", "q4_k_m"))
TRAINING = Job("training", ("data.max_samples=96", "train.num_train_epochs=2", "train.logging_steps=1"))
HEADLINES = Job(
    "headlines",
    ("evaluate.baseline=false", *BY_HAND, OPEN_GATE, "export.gguf=[f16, q4_k_m]"),
    ("q4_k_m",),
    baseline=False,
)

SHIPPED = Job("shipped", (OPEN_GATE,))


def settings(bench: Bench, job: Job, runs_dir: Path, *more: str) -> list[str]:
    """The options of the command line for a job."""
    options = [part for one in (*job.sets, *bench.sets, *more) for part in ("--set", one)]
    return [*options, "--runs-dir", str(runs_dir)]


def finished(bench: Bench, job: Job) -> Path:
    """A runs folder with one finished run of a job."""
    runs_dir = bench.work / f"{job.name}-finished"
    if not list(runs_dir.glob("*/run.json")):
        run([ORCHESTRATOR, "run", *settings(bench, job, runs_dir)], codes=(0, 5))
    return runs_dir


def newest(runs_dir: Path) -> Path:
    """The folder of the newest run."""
    return max(file.parent for file in runs_dir.glob("*/run.json"))


def stage_seconds(run_folder: Path) -> dict[str, float]:
    """How long each stage of a run took."""
    stages: dict[str, dict[str, Any]] = read_json(run_folder / "run.json")["stages"]
    return {name: entry["seconds"] for name, entry in stages.items()}


def by_hand_folder(work: Path, job: Job, prepared: Path) -> Path:
    """A folder with the data and the LLaMA-Factory configurations that someone working by hand would have written."""
    folder = work / f"{job.name}-by-hand"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared / "data", folder / "data")
    shutil.copytree(prepared / "configs", folder / "configs")
    for config in folder.glob("configs/*.yaml"):
        config.write_text(as_written(config.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "export").mkdir()
    (folder / "evaluation").mkdir()
    return folder


def as_written(text: str) -> str:
    """A configuration of LLaMA-Factory's as someone writes it: without what `speed: auto` chose."""
    head, found, _ = text.partition("\n# speed: auto")
    trains = "\ndo_train: true" in head
    missing = [f"{name}: {DEFAULTS[name]}\n" for name in MICRO if found and trains and f"\n{name}:" not in head]
    return head.rstrip() + "\n" + "".join(missing)
