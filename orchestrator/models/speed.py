"""`speed: auto`: arguments of LLaMA-Factory that change how fast it runs and nothing else, where memory allows.

They are chosen when a stage starts, from its arguments, the lengths that `prepare` measured and the
memory that is free then. They are no part of the fingerprint: another machine may choose otherwise and still reuse
the result. What the user wrote is never overruled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.executors.local import visible
from orchestrator.lib import layout
from orchestrator.lib.cpu import threads
from orchestrator.lib.files import read_json
from orchestrator.lib.step import Step, with_arguments
from orchestrator.machine import environment
from orchestrator.models.memory import Forecast, Setting, computed_bytes, merge, predict, train
from orchestrator.models.shape import Model, read_model

SHARE = 0.25
"""Of the free memory that a training may be forecast to take: a forecast is only a forecast, and no result depends on
it."""
CHECKPOINTING = "disable_gradient_checkpointing"
UNSAFE = ("gradient_checkpointing", "use_unsloth", "quantization_bit", "deepspeed", "fsdp", "use_kt")
"""Where one of these is set, checkpointing is the user's choice or another library's."""
BATCH = "per_device_eval_batch_size"
ANSWERED_TOGETHER = 32
"""Rows; a 135M model on two cores answered 2.4 times as many a second as with LLaMA-Factory's 8, and no more with 100.
"""

TOGETHER = 2
"""Stages at once: two predictions with one thread each took 0.78 of the time of one after the other with two."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An argument and why it was chosen."""

    argument: str
    why: str


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

    def affords(self, forecast: Forecast) -> bool:
        """Whether there is memory to spare for it."""
        return _bytes(forecast) <= SHARE * self.free


def for_training(now: Situation) -> list[Choice]:
    """No gradient checkpointing, where all activations fit."""
    if now.model is None or CHECKPOINTING in now.arguments or any(now.arguments.get(key) for key in UNSAFE):
        return []
    arguments = {**now.arguments, CHECKPOINTING: True}
    needed = train(now.model, Setting(arguments, now.longest, devices=devices(arguments)))
    if not now.affords(needed):
        return []
    why = f"training takes about {_gib(_bytes(needed))} with all activations kept, and {_gib(now.free)} are free"
    return [Choice(f"{CHECKPOINTING}=true", why)]


def for_predicting(now: Situation) -> list[Choice]:
    """More rows at a time. In half precision the size of a batch shows in the rounding, so there it stays as it is."""
    if now.model is None or BATCH in now.arguments or computed_bytes(now.model, now.arguments) < 4:
        return []
    arguments = {**now.arguments, BATCH: ANSWERED_TOGETHER}
    new_tokens = now.arguments["max_new_tokens"]
    needed = predict(now.model, Setting(arguments, now.longest, new_tokens, devices(arguments)))
    if not now.affords(needed):
        return []
    why = f"{ANSWERED_TOGETHER} rows at a time take about {_gib(_bytes(needed))}, and {_gib(now.free)} are free"
    return [Choice(f"{BATCH}={ANSWERED_TOGETHER}", why)]


CHOOSE: Mapping[str, Callable[[Situation], list[Choice]]] = {
    "train": for_training,
    "predict-base": for_predicting,
    "predict-tuned": for_predicting,
}
"""Stage → what is chosen for it."""


def devices(training: Mapping[str, Any]) -> int:
    """How many GPUs a training would use."""
    if training.get("use_cpu"):
        return 0
    return len(visible(len(environment.gpus()), os.environ.get("CUDA_VISIBLE_DEVICES")))


def choices(step: Step, run_folder: Path | None, share: float = 1.0) -> list[Choice]:
    """What would be chosen for a step now, with a share of the free memory.

    Before `prepare` has measured the rows, each counts as long as is allowed.
    """
    if step.stage not in CHOOSE:
        return []
    return CHOOSE[step.stage](_situation(step, run_folder, share))


def at_once(steps: Sequence[Step], run_folder: Path, share: float = 1.0) -> int:
    """How many stages of a run may be under way at once: as many as there are cores and, twice over, memory for.

    Who has but a share of the machine, as a trial beside others, does one after the other.
    """
    asked = [step for step in steps if CHOOSE.get(step.stage) is for_predicting]
    if share < 1 or threads() < TOGETHER or not asked:
        return 1
    now = _situation(asked[-1], run_folder, share)
    if now.model is None:
        return 1
    setting = Setting(now.arguments, now.longest, now.arguments["max_new_tokens"])
    largest = max(sum(needed.host.values()) for needed in (predict(now.model, setting), merge(now.model)))
    return TOGETHER if 2 * TOGETHER * largest <= environment.free_main_memory() else 1


def _situation(step: Step, run_folder: Path | None, share: float) -> Situation:
    arguments = step.arguments
    longest = min(_measured(run_folder) or arguments["cutoff_len"], arguments["cutoff_len"])
    model = _model((run_folder or Path()) / arguments["model_name_or_path"])
    if not devices(arguments):  # the processes of one training share the main memory
        share /= int(step.env.get("NPROC_PER_NODE", 1))
    return Situation(arguments, model, longest, share * environment.free_memory())


def forecast(step: Step, run_folder: Path | None) -> dict[str, str]:
    """Argument → reason, as a plan shows it."""
    found = {choice.argument: choice.why for choice in choices(step, run_folder)}
    if step.stage == "train" and not found and not _measured(run_folder):
        return {"speed: auto": "decided once `prepare` has measured the rows"}
    return found


def hastened(step: Step, run_folder: Path, share: float = 1.0) -> Step:
    """A step that is about to start, with what is chosen for it in its configuration."""
    chosen = dict(choice.argument.split("=", 1) for choice in choices(step, run_folder, share))
    return with_arguments(step, chosen, "speed: auto chose what follows; no result depends on it") if chosen else step


def _model(folder: Path) -> Model | None:
    return read_model(folder) if (folder / "config.json").is_file() else None


def _measured(run_folder: Path | None) -> int | None:
    """Tokens of the longest row, or None before `prepare` has counted them."""
    file = run_folder / layout.SERVING if run_folder else None
    return int(read_json(file)["tokens"]["longest"]) if file and file.is_file() else None


def _bytes(forecast: Forecast) -> int:
    return sum((forecast.gpu or forecast.host).values())


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
