"""Convert a LoRA adapter, and once for each base model that model itself: `adapter CONFIG.json`."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator import layout, process, workers
from orchestrator.cache import building, cache_folder
from orchestrator.errors import InputError, StageError
from orchestrator.files import link, read_json, sha256, write_json, write_text
from orchestrator.stages import adapter as stage

MERGED = Path(layout.MERGED)
TRAINED = Path(layout.TRAINED)
LOG = Path(layout.log(stage.STAGE))
WEIGHTS = (".safetensors", ".safetensors.index.json")
OF_THE_MODEL = ("config.json", "generation_config.json")
OF_NOBODY = ("Modelfile", "README.md")


def main(config: Path) -> None:
    """Write the adapter's GGUF, the base model's beside it, and the Modelfile that names both."""
    wanted = read_json(config)
    peft = read_json(TRAINED / "adapter_config.json")
    if reason := stage.unfit_adapter(peft):
        raise InputError(f"the adapter cannot become a GGUF: {reason}", "Set export.adapter to false.")
    whole = base_gguf(wanted)
    link(whole, Path(wanted["base_gguf"]))
    _convert_adapter(wanted, peft)
    text = Path(wanted["modelfile"]).read_text(encoding="utf-8")
    write_text(Path(stage.MODELFILE), over_base(text, Path(wanted["base_gguf"]).name, Path(wanted["gguf"]).name))


def over_base(modelfile: str, base: str, adapter: str) -> str:
    """A Modelfile with its FROM line replaced by the base model and the adapter."""
    lines = modelfile.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return "".join([*lines[:at], f"FROM ./{base}\nADAPTER ./{adapter}\n", *lines[at + 1 :]])


def base_gguf(wanted: Mapping[str, str]) -> Path:
    """The base model as f16 GGUF with the tokenizer and template of training, from the cache or converted now."""
    files = (path for path in MERGED.iterdir() if path.is_file() and path.name not in OF_NOBODY)
    tokenizer = sorted(path for path in files if not _of_the_model(path))
    facts = [wanted["identity"], wanted["version"], *(f"{path.name} {sha256(path)}" for path in tokenizer)]
    target = cache_folder() / "gguf" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
    if not target.is_dir():
        with tempfile.TemporaryDirectory() as folder, building(target) as made:
            _dress(Path(folder), Path(wanted["base"]), tokenizer)
            converter = Path(wanted["converter"]) / "convert_hf_to_gguf.py"
            _run(converter, folder, "--outfile", str(made / "base.gguf"), "--outtype", "f16")
    return target / "base.gguf"


def _dress(folder: Path, base: Path, tokenizer: list[Path]) -> None:
    """The base model's weights with the tokenizer files of the merged model."""
    for path in base.iterdir():
        if path.is_file() and _of_the_model(path):
            (folder / path.name).symlink_to(path.resolve())
    for path in tokenizer:
        shutil.copy2(path, folder / path.name)


def _of_the_model(path: Path) -> bool:
    return path.name.endswith(WEIGHTS) or path.name in OF_THE_MODEL


def _convert_adapter(wanted: Mapping[str, str], peft: Mapping[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder)
        (plain / "adapter_model.safetensors").symlink_to((TRAINED / "adapter_model.safetensors").resolve())
        write_json(plain / "adapter_config.json", {**peft, "lora_alpha": stage.plain_alpha(peft)})
        target = Path(wanted["gguf"])
        growing = target.with_name(f"{target.name}.partial")
        converter = Path(wanted["converter"]) / "convert_lora_to_gguf.py"
        _run(converter, folder, "--base", wanted["base"], "--outfile", str(growing), "--outtype", "f16")
        growing.replace(target)


def _run(program: Path, *arguments: str) -> None:
    argv = [sys.executable, str(program), *arguments]
    if (code := process.wait(process.start(process.Command(argv, Path.cwd(), LOG)))) != 0:
        lines = [line for line in LOG.read_text(encoding="utf-8", errors="replace").splitlines() if "rror" in line]
        raise StageError(
            f"{program.name} ended with exit code {code}: {(lines or ['no reason given'])[-1]}", f"See {LOG}."
        )


if __name__ == "__main__":
    workers.run(main)
