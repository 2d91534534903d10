"""What `speed: auto` looks at before it chooses: arguments, model, rows and memory of a step that is about to start."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.models.memory import Forecast, MemoryInput, train
from orchestrator.models.shape import Model, read_model

SHARE = 0.25
"""Of the free memory that a training may be forecast to take: a forecast is only a forecast, and no result depends on
it."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of models that see or hear; LLaMA-Factory then weighs micro-batches otherwise."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a choice depends on."""

    arguments: Mapping[str, Any]
    """Of LLaMA-Factory, as the configuration has them."""
    model: Model | None
    """None for an architecture that no forecast is known for."""
    longest: int
    """Tokens of the longest row."""
    free: float
    """Bytes."""
    answer: int | None = None
    """Most tokens of a row that a loss is computed on; None where nobody has counted them."""
    mean: float = 0.0
    """Tokens of a row on average; 0 where nobody has counted them."""
    unset: tuple[str, ...] = ()
    """Arguments that nobody wrote."""
    barred: str = ""
    """Why no program of ours may come between: the reason, or nothing."""

    def affords(self, needed: float) -> bool:
        """Whether there are so many bytes to spare."""
        return needed <= SHARE * self.free


def total(forecast: Forecast) -> int:
    """Bytes where the model is: on the GPU, or in main memory."""
    return sum((forecast.gpu or forecast.host).values())


def training_bytes(now: Situation, changes: Mapping[str, Any]) -> int:
    """The forecast of a training with other arguments."""
    assert now.model is not None
    arguments = {**now.arguments, **changes}
    return total(train(now.model, MemoryInput(arguments, now.longest, devices=devices(arguments), answer=now.answer)))


def devices(training: Mapping[str, Any]) -> int:
    """How many GPUs a training would use."""
    if training.get("use_cpu"):
        return 0
    return len(environment.visible_gpus())


def of_step(step: Step, run_folder: Path | None, share: float) -> Situation:
    """The situation of a training or a prediction, which may have a share of the free memory.

    Before `prepare` has measured the rows, each counts as long as is allowed.
    """
    arguments = step.arguments
    folder, rows = (run_folder or Path()) / arguments["model_name_or_path"], counted(run_folder)
    if not devices(arguments):  # the processes of one training share the main memory
        share /= int(step.env.get("NPROC_PER_NODE", 1))
    return Situation(
        arguments=arguments,
        model=read_model(folder) if (folder / "config.json").is_file() else None,
        longest=longest(arguments, rows) + told(step, run_folder),
        free=share * environment.free_memory(),
        answer=with_loss(arguments, rows),
        mean=float(rows.get("mean", 0.0)),
        unset=step.unset,
        barred="several processes" if step.spawns else barred(folder),
    )


def counted(run_folder: Path | None) -> dict[str, Any]:
    """What `prepare` has counted of the rows' tokens; nothing before it has."""
    file = run_folder / layout.SERVING if run_folder else None
    return dict(read_json(file)["tokens"]) if file and file.is_file() else {}


def told(step: Step, run_folder: Path | None) -> int:
    """Bytes, and so at most as many tokens, that a step's rows have before those that `prepare` has counted."""
    file = run_folder / layout.TOLD if run_folder and "prompted" in step.needs else None
    return file.stat().st_size if file and file.is_file() else 0


def longest(arguments: Mapping[str, Any], rows: Mapping[str, Any]) -> int:
    """Tokens of the longest row, as far as they are counted; packed rows are as long as they may be."""
    packed = arguments.get("packing") or arguments.get("stage") == "pt"
    most = int(arguments["cutoff_len"])
    return most if packed else min(int(rows.get("longest", most)), most)


def with_loss(arguments: Mapping[str, Any], rows: Mapping[str, Any]) -> int | None:
    """Most tokens of a row that a loss is computed on; None where nobody has counted them."""
    if "longest_answer" not in rows or arguments.get("train_on_prompt"):
        return None
    return min(int(rows["longest_answer"]), longest(arguments, rows))


def barred(folder: Path) -> str:
    """Why a model's loss cannot be computed from the logits of its answers alone; nothing where it can."""
    if not (folder / "config.json").is_file():
        return ""
    if any((folder / name).is_file() for name in PROCESSORS):
        return "a model of more than text"
    return _lacking(str(read_json(folder / "config.json").get("model_type", "")))


@functools.cache
def _lacking(kind: str) -> str:
    """Why the installed transformers cannot compute the logits of some tokens alone for a type of model, or ''."""
    package = find_spec("transformers")
    if package is None or package.origin is None:
        return "transformers is not installed"
    source = Path(package.origin).parent / "models" / kind / f"modeling_{kind}.py"
    if source.is_file() and "logits_to_keep" in source.read_text(encoding="utf-8"):
        return ""
    return f"transformers' {kind or 'model'} takes no logits_to_keep"
