"""A folder that any machine with Ollama can make a model of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator import layout, proof
from orchestrator.cache import cache_folder
from orchestrator.errors import InputError
from orchestrator.files import HashCache, link, write_text
from orchestrator.records import Run
from orchestrator.ship import modelfile


def files(run: Run, kind: str) -> list[Path]:
    """The Modelfile of a GGUF and the model files it names."""
    file = run.folder / f"{layout.MODELFILE}.{kind}"
    instructions = modelfile.read(file)
    names = [name for name in (instructions.model, instructions.adapter) if name]
    return [file, *(file.parent / name for name in names)]


def write(run: Run, kind: str, name: str, folder: Path) -> Sequence[Path]:
    """Modelfile, GGUF (linked where the disk can, else copied) and a README of two lines; returns what is there now.

    Raises InputError when the folder holds something else.
    """
    own = files(run, kind)
    expected = {"Modelfile", "README.md", *(path.name for path in own[1:])}
    if folder.is_dir() and (strange := sorted({path.name for path in folder.iterdir()} - expected)):
        raise InputError(f"{folder} already holds {strange[0]!r}", "Name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "Modelfile", own[0].read_text(encoding="utf-8"))
    for path in own[1:]:
        link(path, folder / path.name)
    write_text(folder / "README.md", f"Made by run {run.id}. In this folder:\n\n    {command(name)}\n")
    made = sorted(folder.iterdir())
    if folder.is_relative_to(run.folder):
        hashes = HashCache(cache_folder() / "hashes.json")
        proof.add(run, made, hashes)
        hashes.save()
    return made


def command(name: str) -> str:
    """What to type in the bundle's folder."""
    return f"ollama create {name} -f Modelfile && ollama run {name}"
