"""A folder that somebody's LLaMA-Factory training left: what was trained, over which model, with which arguments.

What the command line leaves there names the base model and no more (adapter_config.json, README.md); the web UI adds
training_args.yaml and llamaboard_config.yaml. Nothing pickled (training_args.bin) is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.models.hub import REPOSITORY, cached
from orchestrator.models.tokenizer import json_object
from orchestrator.models.weights import damaged

CONFIGS = ("training_args.yaml", "train.yaml")
"""Of the web UI, and as people call their own."""
BOARD = "llamaboard_config.yaml"
_BOARD_KEYS = {
    "top.model_path": "model_name_or_path",
    "top.template": "template",
    "top.finetuning_type": "finetuning_type",
    "train.enable_thinking": "enable_thinking",
    "train.cutoff_len": "cutoff_len",
    "train.dataset": "dataset",
}
"""What the web UI calls its fields → LLaMA-Factory's arguments."""


OF_ADAPTER = ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")
"""What adapter_config.json and LLaMA-Factory call alike."""


@dataclass(frozen=True, slots=True)
class Saves:
    """What is known of a training from what it left."""

    folder: Path
    """Where the adapter or the weights lie: the folder itself, or its newest checkpoint."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """LLaMA-Factory's, as far as a file tells them."""
    arguments_from: str = ""
    """That file's name, or ""."""
    adapter: Mapping[str, Any] = field(default_factory=dict)
    """adapter_config.json; empty for a model whose own weights were trained."""
    base: str = ""
    """As the files name it: a folder or ORG/NAME; "" where they do not."""
    remark: str = ""
    """What is unusual about the folder, in a few words."""

    def adapter_arguments(self) -> dict[str, Any]:
        """LLaMA-Factory's arguments that adapter_config.json tells; nothing where that is not of LoRA."""
        own = self.adapter
        if own.get("peft_type", "LORA") != "LORA" or "r" not in own:
            return {}
        targets = own.get("target_modules")
        told = {"lora_rank": own["r"], **{key: own[key] for key in OF_ADAPTER if own.get(key)}}
        return told | ({"lora_target": ",".join(sorted(targets))} if isinstance(targets, list) else {})

    def base_folder(self) -> Path | None:
        """Where the base model lies on this machine; None where it does not."""
        if not self.base:
            return self.folder if (self.folder / "config.json").is_file() else None
        if (Path(self.base) / "config.json").is_file():
            return Path(self.base)
        names = (f"{source}:{self.base}" for source in ("hf", "modelscope"))
        return next((found for name in names if REPOSITORY.match(name) and (found := cached(name))), None)

    def tokenizer_folder(self) -> Path | None:
        """Where the tokenizer of training lies: beside what was trained, else that of the base model."""
        places = (self.folder, self.folder.parent, self.base_folder())
        return next((place for place in places if place and (place / "tokenizer_config.json").is_file()), None)


def read_saves(folder: Path, config: Path | None = None) -> Saves:
    """What is known of a training. `config` is its YAML, where that lies elsewhere.

    Raises InputError for a folder that no training left, or that holds none of its results.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {str(folder)!r}", "Name the output_dir of a training, such as saves/NAME/lora/….")
    trained, remark = _trained(folder)
    arguments, arguments_from = _arguments(folder, config)
    adapter = _adapter(trained)
    base = str(adapter.get("base_model_name_or_path") or arguments.get("model_name_or_path") or _card(folder) or "")
    return Saves(trained, arguments, arguments_from, adapter, base, remark)


def read_arguments(file: Path) -> dict[str, Any]:
    """The arguments in a LLaMA-Factory YAML or JSON file. Raises InputError for a file that holds none."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no file {str(file)!r}", "Name the YAML that was given to llamafactory-cli train.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise InputError(f"cannot read {file.name}: {what}", "It is to be LLaMA-Factory's own YAML.") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{file.name} holds no arguments of LLaMA-Factory", "It is to be LLaMA-Factory's own YAML.")
    return {_BOARD_KEYS.get(str(key), str(key)): value for key, value in found.items()} if file.name == BOARD else found


def _trained(folder: Path) -> tuple[Path, str]:
    """Where the result lies, and a remark where that is not the folder itself."""
    damage = _damage(folder) if _has_result(folder) else "the training did not end"
    if not damage:
        return folder, ""
    saved = reversed(layout.checkpoints(folder))
    if newest := next((path for path in saved if _has_result(path) and not _damage(path)), None):
        return newest, f"{damage}; {newest.name} is looked at"
    if _has_result(folder):
        raise InputError(f"{damage} in {str(folder)!r}", "Copy the folder again; it may have been cut short.")
    what = "adapter_model.safetensors and adapter_config.json, or config.json with weights"
    raise InputError(
        f"{str(folder)!r} holds no result of a training", f"Name the folder with {what}: the training's output_dir."
    )


def _has_result(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    whole = "config.json" in names and any(name.endswith(".safetensors") for name in names)
    return {"adapter_config.json", "adapter_model.safetensors"} <= names or whole


def _damage(folder: Path) -> str:
    """What is wrong with a result's files, or ""; no weight is read."""
    for name in ("adapter_config.json", "config.json"):
        try:
            json_object(folder / name)
        except InputError:
            return f"{name} is damaged"
    return next((f"{name} is damaged ({error})" for name, error in damaged(folder)), "")


def _adapter(folder: Path) -> dict[str, Any]:
    return json_object(folder / "adapter_config.json")


def _arguments(folder: Path, config: Path | None) -> tuple[dict[str, Any], str]:
    if config:
        return read_arguments(config), config.name
    for file in _candidates(folder):
        if file.is_file() and (found := read_arguments(file)).keys() & {"template", "model_name_or_path"}:
            return found, file.name
    return {}, ""


def _candidates(folder: Path) -> Iterator[Path]:
    for place in (folder, folder.parent):
        yield from (place / name for name in CONFIGS)
        yield place / BOARD
        if place is folder:
            yield from sorted(place.glob("*.y*ml"))
        if not folder.name.startswith("checkpoint-"):
            return


def _card(folder: Path) -> str | None:
    """The base model that the model card names."""
    file = folder / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    named = re.search(r"(?m)^base_model: *[\"']?([^\s\"']+)", text)
    return named[1] if named else None
