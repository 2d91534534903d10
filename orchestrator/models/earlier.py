"""What an earlier run made, to be trained further: `run:ID` its merged model, `run:ID@adapter` its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import read_json
from orchestrator.runs import store
from orchestrator.runs.store import Run

SOURCE = "run"
ADAPTER = "@adapter"
FIXED = {"lora_rank": "r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "use_dora": "use_dora"}
"""Training argument → what PEFT's adapter_config.json calls it: a property of an adapter that is trained on."""


def run_of(name: str, runs_dir: Path | None) -> Run:
    """The run that an id, a part of one, or a folder names. Raises InputError when that is not exactly one."""
    if not (name := name.removesuffix(ADAPTER)):
        raise InputError("model.base: run: names no run", "Write run:ID; `orchestrator runs list` has the ids.")
    return store.find(runs_dir or Path("runs"), name)


def folder(name: str, runs_dir: Path | None) -> Path:
    """The run's merged model, which holds its adapter and all before it. Raises MissingError while it has none."""
    run = run_of(name, runs_dir)
    merged = run.folder / layout.MERGED
    if run.stage("template").get("status") != "completed" or not merged.is_dir():
        raise MissingError(f"model.base: run {run.id} has no merged model", "Make it with `orchestrator export`.")
    return merged.resolve()


def template(name: str, runs_dir: Path | None) -> str:
    """The template that the run was trained with."""
    return str(read_json(run_of(name, runs_dir).folder / layout.SERVING)["template"])


# ---- the adapter


def keeps_adapter(base: str) -> bool:
    """Whether a base model is an earlier run's adapter over that run's own base model."""
    return base.startswith(f"{SOURCE}:") and base.endswith(ADAPTER)


def adapter(name: str, runs_dir: Path | None) -> Path:
    """The folder of the run's adapter. Raises MissingError while there is none, InputError for one that needs more."""
    run = run_of(name, runs_dir)
    found = run.folder / layout.trained(run.folder)
    whole = f"Continue from its merged model: run:{run.id}."
    if run.stage("train").get("status") != "completed":
        raise MissingError(f"model.base: run {run.id} has not been trained to the end", "Run it again first.")
    if not (found / "adapter_config.json").is_file() or read_json(found / "adapter_config.json")["peft_type"] != "LORA":
        raise InputError(f"model.base: run {run.id} has no LoRA adapter", whole)
    trained = run.arguments
    if trained.get("adapter_name_or_path") and trained.get("create_new_adapter"):
        raise InputError(f"model.base: the adapter of run {run.id} lies over another run's", whole)
    return found.resolve()


def origin(name: str, runs_dir: Path | None) -> tuple[str, str]:
    """Name and identity of the base model under a run's adapter, which other runs may have trained before it.

    Raises MissingError when the run's record does not say.
    """
    run = run_of(name, runs_dir)
    known = run.record["lineage"].get("base_model")
    if known is None:
        raise MissingError(f"model.base: run {run.id} has no finished record", "Run it to its end first.")
    if keeps_adapter(known["name"]):
        return origin(known["name"].removeprefix(f"{SOURCE}:"), runs_dir)
    return known["name"], known["identity"]


def require_continuable(adapter: Path, training: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Raise InputError where a training cannot go on from an adapter; `chosen` is what the spec itself says."""
    if training["finetuning_type"] != "lora":
        raise InputError(
            f"train.finetuning_type: {training['finetuning_type']!r} cannot go on from an adapter",
            "Continue from the merged model: leave @adapter out of model.base.",
        )
    if training.get("create_new_adapter"):
        if training.get("quantization_bit"):
            raise InputError(
                "train.create_new_adapter: a quantised model takes no second adapter",
                "Leave @adapter out, or say create_new_adapter: false: the reference then has no adapter at all.",
            )
        return
    config = read_json(adapter / "adapter_config.json")
    for key, name in FIXED.items():
        if key in chosen and chosen[key] != config.get(name):
            raise InputError(
                f"train.{key}: the adapter to go on with has {config.get(name)}, not {chosen[key]}",
                f"Leave {key} out, or say create_new_adapter: true to train a second adapter over it.",
            )
