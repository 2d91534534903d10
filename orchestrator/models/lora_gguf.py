"""A LoRA adapter as a GGUF of a few megabytes, and the base model's own GGUF that llama.cpp lays it over."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib import process
from orchestrator.lib.errors import StageError
from orchestrator.lib.files import building, cache_folder, read_json, sha256, sha256_of, write_json

WEIGHTS = (".safetensors", ".safetensors.index.json")
OF_THE_MODEL = ("config.json", "generation_config.json")
OF_NOBODY = ("Modelfile", "README.md")


@dataclass(frozen=True)
class LoraConverter:
    """llama.cpp's converters for one base model; what they print goes into a log."""

    base: Path
    """The base model's folder."""
    identity: str
    """What that model is: decides, with the converter's version, whether its GGUF is in the cache."""
    converter: Path
    """The llama.cpp folder."""
    version: str
    log: Path

    def base_gguf(self, tokenizer: Path) -> Path:
        """The base model as f16 GGUF with the tokenizer and template of a folder, from the cache or converted now.

        Raises StageError when the converter fails.
        """
        files = (path for path in tokenizer.iterdir() if path.is_file() and path.name not in OF_NOBODY)
        dress = sorted(path for path in files if not _of_the_model(path))
        facts = [self.identity, self.version, *(f"{path.name} {sha256(path)}" for path in dress)]
        target = cache_folder() / "gguf" / sha256_of("\n".join(facts))[:24]
        if not target.is_dir():
            with tempfile.TemporaryDirectory() as folder, building(target) as made:
                _dress(Path(folder), self.base, dress)
                self._run("convert_hf_to_gguf.py", folder, "--outfile", str(made / "base.gguf"), "--outtype", "f16")
        return target / "base.gguf"

    def adapter_gguf(self, trained: Path, target: Path) -> None:
        """Write the adapter in a folder as GGUF. Raises StageError when the converter fails."""
        peft = read_json(trained / "adapter_config.json")
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder)
            (plain / "adapter_model.safetensors").symlink_to((trained / "adapter_model.safetensors").resolve())
            write_json(plain / "adapter_config.json", {**peft, "lora_alpha": plain_alpha(peft)})
            growing = target.with_name(f"{target.name}.partial")
            to = ("--outfile", str(growing), "--outtype", "f16")
            self._run("convert_lora_to_gguf.py", folder, "--base", str(self.base), *to)
            growing.replace(target)

    def _run(self, program: str, *arguments: str) -> None:
        argv = [sys.executable, str(self.converter / program), *arguments]
        if (code := process.wait(process.start(process.Command(argv, Path.cwd(), self.log)))) != 0:
            lines = [line for line in process.said(self.log) if "rror" in line]
            reason = (lines or ["no reason given"])[-1]
            raise StageError(f"{program} ended with exit code {code}: {reason}", f"See {self.log}.")


def unfit_training(training: Mapping[str, Any]) -> str | None:
    """Why the adapter that this training makes cannot become a GGUF, or None."""
    if training["finetuning_type"] != "lora":
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


def _dress(folder: Path, base: Path, tokenizer: Iterable[Path]) -> None:
    """The base model's weights with other tokenizer files."""
    for path in base.iterdir():
        if path.is_file() and _of_the_model(path):
            (folder / path.name).symlink_to(path.resolve())
    for path in tokenizer:
        shutil.copy2(path, folder / path.name)


def _of_the_model(path: Path) -> bool:
    return path.name.endswith(WEIGHTS) or path.name in OF_THE_MODEL
