"""adapter: the LoRA adapter as a GGUF of a few megabytes, for the base model's own GGUF, with an ADAPTER Modelfile."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib import layout, process
from orchestrator.lib.errors import InputError, StageError
from orchestrator.lib.files import building, cache_folder, link, read_json, sha256, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.models.tokenizer import json_object
from orchestrator.spec.sections import LORA
from orchestrator.stages.base import Context, Stage

NAME = "adapter"
"""Of the stage, and of its GGUF where others are named by their type."""
BASE = "base"
MODELFILE = f"{layout.MODELFILE}.{NAME}"
MERGED = Path(layout.MERGED)
TRAINED = Path(layout.TRAINED)
LOG = Path(layout.log(NAME))
WEIGHTS = (".safetensors", ".safetensors.index.json")
OF_THE_MODEL = ("config.json", "generation_config.json")
OF_NOBODY = ("Modelfile", "README.md")


@dataclass(frozen=True)
class Adapter(Stage):
    """The adapter's GGUF, the base model's beside it, and the Modelfile that names both."""

    program = NAME
    phase = "export"
    base: str
    """The base model's folder."""
    identity: str
    """What that model is: decides, with the converter's version, whether its GGUF is in the cache."""
    converter: str
    """The llama.cpp folder."""
    version: str
    modelfile: str
    """The Modelfile of a whole GGUF, which this one follows."""
    gguf: str
    base_gguf: str

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step when the spec asks for it. Raises InputError for an adapter that a GGUF cannot hold."""
        if not context.spec.export.adapter:
            return []
        over = "its adapter lies over another run's" if context.over_adapter else None
        if reason := over or unfit_training(context.training) or unfit_base(context.base_path):
            hint = "Set export.adapter to false; the merged GGUFs hold all of it."
            raise InputError(f"export.adapter: {reason}", hint)
        name, version = context.spec.name, context.versions["llama.cpp"]
        stage = cls(
            base=str(context.base_path),
            identity=context.base_identity,
            converter=str(context.converter),
            version=version,
            modelfile=f"{layout.MODELFILE}.{context.spec.export.gguf[0]}",
            gguf=layout.gguf(name, NAME),
            base_gguf=layout.gguf(name, BASE),
        )
        return [
            stage.step(
                NAME,
                expects=(stage.gguf, stage.base_gguf, MODELFILE),
                needs=("train", "template", "modelfile"),
                inputs={"base": context.base_identity, "llama.cpp": version},
            )
        ]

    def run(self) -> None:
        """Write them. Raises InputError for an adapter that no GGUF holds, StageError when the converter fails."""
        peft = read_json(TRAINED / "adapter_config.json")
        if reason := unfit_adapter(peft):
            raise InputError(f"the adapter cannot become a GGUF: {reason}", "Set export.adapter to false.")
        link(self._whole_base(), Path(self.base_gguf))
        self._convert_adapter(peft)
        text = Path(self.modelfile).read_text(encoding="utf-8")
        write_text(Path(MODELFILE), over_base(text, Path(self.base_gguf).name, Path(self.gguf).name))

    def _whole_base(self) -> Path:
        """The base model as f16 GGUF with the tokenizer and template of training, from the cache or converted now."""
        files = (path for path in MERGED.iterdir() if path.is_file() and path.name not in OF_NOBODY)
        tokenizer = sorted(path for path in files if not _of_the_model(path))
        facts = [self.identity, self.version, *(f"{path.name} {sha256(path)}" for path in tokenizer)]
        target = cache_folder() / "gguf" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
        if not target.is_dir():
            with tempfile.TemporaryDirectory() as folder, building(target) as made:
                _dress(Path(folder), Path(self.base), tokenizer)
                converter = Path(self.converter) / "convert_hf_to_gguf.py"
                _run(converter, folder, "--outfile", str(made / "base.gguf"), "--outtype", "f16")
        return target / "base.gguf"

    def _convert_adapter(self, peft: Mapping[str, object]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder)
            (plain / "adapter_model.safetensors").symlink_to((TRAINED / "adapter_model.safetensors").resolve())
            write_json(plain / "adapter_config.json", {**peft, "lora_alpha": plain_alpha(peft)})
            target = Path(self.gguf)
            growing = target.with_name(f"{target.name}.partial")
            converter = Path(self.converter) / "convert_lora_to_gguf.py"
            _run(converter, folder, "--base", self.base, "--outfile", str(growing), "--outtype", "f16")
            growing.replace(target)


def unfit_base(folder: Path) -> str | None:
    """Why no adapter over this base model can become a GGUF, or None."""
    if json_object(folder / "config.json").get("kv_lora_rank"):
        return "llama.cpp's converter cannot take apart adapters of multi-head latent attention (kv_lora_rank)"
    return None


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


def over_base(modelfile: str, base: str, adapter: str) -> str:
    """A Modelfile with its FROM line replaced by the base model and the adapter."""
    lines = modelfile.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return "".join([*lines[:at], f"FROM ./{base}\nADAPTER ./{adapter}\n", *lines[at + 1 :]])


def _dress(folder: Path, base: Path, tokenizer: list[Path]) -> None:
    """The base model's weights with the tokenizer files of the merged model."""
    for path in base.iterdir():
        if path.is_file() and _of_the_model(path):
            (folder / path.name).symlink_to(path.resolve())
    for path in tokenizer:
        shutil.copy2(path, folder / path.name)


def _of_the_model(path: Path) -> bool:
    return path.name.endswith(WEIGHTS) or path.name in OF_THE_MODEL


def _run(program: Path, *arguments: str) -> None:
    argv = [sys.executable, str(program), *arguments]
    if (code := process.wait(process.start(process.Command(argv, Path.cwd(), LOG)))) != 0:
        lines = [line for line in process.said(LOG) if "rror" in line]
        raise StageError(
            f"{program.name} ended with exit code {code}: {(lines or ['no reason given'])[-1]}", f"See {LOG}."
        )
