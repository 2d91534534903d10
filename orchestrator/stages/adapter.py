"""adapter: the LoRA adapter as a GGUF of a few megabytes, for the base model's own GGUF, with an ADAPTER Modelfile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator import layout
from orchestrator.errors import InputError
from orchestrator.spec.defaults import LORA
from orchestrator.stages.context import Context, worker
from orchestrator.step import Step

STAGE = "adapter"
KIND = "adapter"
BASE_KIND = "base"
MODELFILE = f"{layout.MODELFILE}.{KIND}"


def build(context: Context) -> list[Step]:
    """One step when the spec asks for it. Raises InputError for an adapter that a GGUF cannot hold."""
    if not context.spec.export.adapter:
        return []
    over = "its adapter lies over another run's" if context.over_adapter else None
    if reason := over or unfit_training(context.training):
        raise InputError(f"export.adapter: {reason}", "Set export.adapter to false; the merged GGUFs hold all of it.")
    config = f"configs/{STAGE}.json"
    name = context.spec.name
    values = {
        "base": str(context.base_path),
        "identity": context.base_identity,
        "converter": str(context.converter),
        "version": context.versions["llama.cpp"],
        "modelfile": f"{layout.MODELFILE}.{context.spec.export.gguf[0]}",
        "gguf": layout.gguf(name, KIND),
        "base_gguf": layout.gguf(name, BASE_KIND),
    }
    return [
        Step(
            stage=STAGE,
            phase="export",
            argv=worker("adapter", config),
            files={config: json.dumps(values, indent=2) + "\n"},
            expects=(values["gguf"], values["base_gguf"], MODELFILE),
            needs=("train", "template", "modelfile"),
            inputs={"base": context.base_identity, "llama.cpp": context.versions["llama.cpp"]},
        )
    ]


def unfit_training(training: Mapping[str, Any]) -> str | None:
    """Why the adapter that this training makes cannot become a GGUF, or None."""
    if training["finetuning_type"] != LORA:
        return f"finetuning_type {training['finetuning_type']!r} makes no LoRA adapter"
    if training.get("use_dora"):
        return "use_dora trains magnitudes, and a LoRA GGUF holds none"
    if training.get("pissa_init") and not training.get("pissa_convert"):
        return "pissa_init changes the base model too; set pissa_convert to true as well"
    whole = [
        key for key in ("additional_target", "add_tokens", "add_special_tokens", "resize_vocab") if training.get(key)
    ]
    return f"{whole[0]} trains whole modules, and a LoRA GGUF holds only low-rank ones" if whole else None


def unfit_adapter(config: Mapping[str, Any]) -> str | None:
    """Why an adapter cannot become a GGUF, by PEFT's adapter_config.json, or None."""
    if config.get("use_dora"):
        return "it is a DoRA adapter, and a LoRA GGUF holds no magnitudes"
    if modules := config.get("modules_to_save"):
        return f"it holds whole modules ({', '.join(modules)}), and a LoRA GGUF holds only low-rank ones"
    if config.get("alpha_pattern"):
        return "its modules have different lora_alpha, and a LoRA GGUF has one for all"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "it holds biases, which the converter does not take"
    return None


def plain_alpha(config: Mapping[str, Any]) -> float:
    """The lora_alpha with which llama.cpp, which scales by alpha / r, scales as PEFT does: rsLoRA by alpha / √r.

    Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA (2023).
    """
    alpha = float(config["lora_alpha"])
    return alpha * float(config["r"]) ** 0.5 if config.get("use_rslora") else alpha
