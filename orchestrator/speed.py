"""`speed: auto`: training arguments that change how fast it runs and nothing else, where memory allows.

They are chosen when the training starts, from the rendered configuration, the lengths that `prepare` measured and the
memory that is free then. They are no part of the fingerprint: another machine may choose otherwise and still reuse
the result. What the user wrote is never overruled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import environment, layout
from orchestrator.files import read_json
from orchestrator.step import Step

SHARE = 0.25
"""Of the free memory that a training may be forecast to take: a forecast is only a forecast, and no result depends on
it."""
COPIES = {True: 2, False: 8}
"""Weights in memory per byte on disk: for an adapter, room for an upcast; else gradients and Adam's two moments too."""
CHECKPOINTING = "disable_gradient_checkpointing"
UNSAFE = ("gradient_checkpointing", "use_unsloth", "quantization_bit", "deepspeed", "fsdp", "use_kt")
"""Where one of these is set, checkpointing is the user's choice or another library's."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An argument and why it was chosen."""

    argument: str
    why: str


@dataclass(frozen=True, slots=True)
class Base:
    """What a forecast needs to know of the base model."""

    config: Mapping[str, Any]
    weight_bytes: int


def choose(training: Mapping[str, Any], base: Base, longest: int, free: float) -> list[Choice]:
    """The arguments for a training configuration whose longest row has so many tokens, with so many bytes free."""
    if CHECKPOINTING in training or any(training.get(key) for key in UNSAFE):
        return []
    kept = activations(base.config, training["per_device_train_batch_size"] * longest, _half(training))
    if kept is None:
        return []
    needed = kept + COPIES[training["finetuning_type"] == "lora"] * base.weight_bytes
    if needed > SHARE * free:
        return []
    why = f"training takes about {needed / 2**30:.1f} GiB with all activations kept, and {free / 2**30:.0f} are free"
    return [Choice(f"{CHECKPOINTING}=true", why)]


def activations(model: Mapping[str, Any], tokens: int, half: bool = False) -> int | None:
    """Bytes of activations that the backward pass needs for so many tokens, or None for an unknown architecture.

    After Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", equation 1, without
    the attention scores, which fused kernels do not keep, and with a gated MLP; what adapters keep counts as much as
    the layers again. The logits are left out, since they are kept either way.
    """
    try:
        width, inner, layers = model["hidden_size"], model["intermediate_size"], model["num_hidden_layers"]
    except KeyError:
        return None
    return int(2 * (2 if half else 4) * tokens * layers * (8 * width + 4 * inner))


def choices(step: Step, run_folder: Path | None, share: float = 1.0) -> list[Choice]:
    """What would be chosen for a step now, with a share of the free memory.

    Before `prepare` has measured the rows, each counts as long as is allowed.
    """
    if step.stage != "train":
        return []
    import yaml

    training = yaml.safe_load(step.files[layout.config(step.stage)])
    longest = _longest(run_folder, training["cutoff_len"])
    return choose(training, _base(Path(training["model_name_or_path"])), longest, share * environment.free_memory())


def forecast(step: Step, run_folder: Path | None) -> dict[str, str]:
    """Argument → reason, as a plan shows it."""
    found = {choice.argument: choice.why for choice in choices(step, run_folder)}
    if step.stage == "train" and not found and not _measured(run_folder):
        return {"speed: auto": "decided once `prepare` has measured the rows"}
    return found


def extra_arguments(step: Step, run_folder: Path, share: float = 1.0) -> tuple[str, ...]:
    """What to add to the command of a step that is about to start; nothing for all but the training."""
    return tuple(choice.argument for choice in choices(step, run_folder, share))


def _base(folder: Path) -> Base:
    config = folder / "config.json"
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Base(read_json(config) if config.is_file() else {}, weights)


def _half(training: Mapping[str, Any]) -> bool:
    return bool(training.get("bf16") or training.get("fp16"))


def _longest(run_folder: Path | None, limit: int) -> int:
    return min(_measured(run_folder) or limit, limit)


def _measured(run_folder: Path | None) -> int | None:
    """Tokens of the longest row, or None before `prepare` has counted them."""
    file = run_folder / layout.SERVING if run_folder else None
    return int(read_json(file)["tokens"]["longest"]) if file and file.is_file() else None
