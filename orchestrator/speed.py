"""`speed: auto`: training arguments that change how fast it runs and nothing else, where memory allows.

They are chosen when the training starts, from the rendered configuration, the lengths that `prepare` measured and the
memory that is free then. They are no part of the fingerprint: another machine may choose otherwise and still reuse
the result. What the user wrote is never overruled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import environment, layout
from orchestrator.executors.local import visible
from orchestrator.files import read_json
from orchestrator.memory.forecast import Setting, train
from orchestrator.memory.model import Model, read_model
from orchestrator.step import Step

SHARE = 0.25
"""Of the free memory that a training may be forecast to take: a forecast is only a forecast, and no result depends on
it."""
CHECKPOINTING = "disable_gradient_checkpointing"
UNSAFE = ("gradient_checkpointing", "use_unsloth", "quantization_bit", "deepspeed", "fsdp", "use_kt")
"""Where one of these is set, checkpointing is the user's choice or another library's."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An argument and why it was chosen."""

    argument: str
    why: str


def choose(training: Mapping[str, Any], model: Model | None, longest: int, free: float) -> list[Choice]:
    """The arguments for a training configuration whose longest row has so many tokens, with so many bytes free.

    `model` is None for an architecture that no forecast is known for.
    """
    if model is None or CHECKPOINTING in training or any(training.get(key) for key in UNSAFE):
        return []
    forecast = train(model, Setting({**training, CHECKPOINTING: True}, longest, devices=devices(training)))
    needed = sum((forecast.gpu or forecast.host).values())
    if needed > SHARE * free:
        return []
    why = f"training takes about {needed / 2**30:.1f} GiB with all activations kept, and {free / 2**30:.0f} are free"
    return [Choice(f"{CHECKPOINTING}=true", why)]


def devices(training: Mapping[str, Any]) -> int:
    """How many GPUs a training would use."""
    if training.get("use_cpu"):
        return 0
    return len(visible(len(environment.gpus()), os.environ.get("CUDA_VISIBLE_DEVICES")))


def choices(step: Step, run_folder: Path | None, share: float = 1.0) -> list[Choice]:
    """What would be chosen for a step now, with a share of the free memory.

    Before `prepare` has measured the rows, each counts as long as is allowed.
    """
    if step.stage != "train":
        return []
    import yaml

    training = yaml.safe_load(step.files[layout.config(step.stage)])
    longest = _longest(run_folder, training["cutoff_len"])
    return choose(training, _model(Path(training["model_name_or_path"])), longest, share * environment.free_memory())


def forecast(step: Step, run_folder: Path | None) -> dict[str, str]:
    """Argument → reason, as a plan shows it."""
    found = {choice.argument: choice.why for choice in choices(step, run_folder)}
    if step.stage == "train" and not found and not _measured(run_folder):
        return {"speed: auto": "decided once `prepare` has measured the rows"}
    return found


def extra_arguments(step: Step, run_folder: Path, share: float = 1.0) -> tuple[str, ...]:
    """What to add to the command of a step that is about to start; nothing for all but the training."""
    return tuple(choice.argument for choice in choices(step, run_folder, share))


def _model(folder: Path) -> Model | None:
    return read_model(folder) if (folder / "config.json").is_file() else None


def _longest(run_folder: Path | None, limit: int) -> int:
    return min(_measured(run_folder) or limit, limit)


def _measured(run_folder: Path | None) -> int | None:
    """Tokens of the longest row, or None before `prepare` has counted them."""
    file = run_folder / layout.SERVING if run_folder else None
    return int(read_json(file)["tokens"]["longest"]) if file and file.is_file() else None
