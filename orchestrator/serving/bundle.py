"""A folder that any machine with Ollama can make a model of, and its Modelfile read back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import HashCache, cache_folder, link, write_text
from orchestrator.runs import proof
from orchestrator.runs.store import Run


def files(run: Run, kind: str) -> list[Path]:
    """The Modelfile of a GGUF and the model files it names."""
    file = run.folder / f"{layout.MODELFILE}.{kind}"
    instructions = read(file)
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


def command(name: str, folder: Path | None = None) -> str:
    """What to type in the bundle's folder, or elsewhere to get there first."""
    there = f"cd {shlex.quote(str(folder))} && " if folder else ""
    return f"{there}ollama create {name} -f Modelfile && ollama run {name}"


_INSTRUCTION = re.compile(
    r'(?m)^(?P<name>[A-Z]+)[ \t]+(?P<key>\w+[ \t]+)?(?:"""(?P<long>.*?)"""|(?P<short>[^\n]*))', re.DOTALL
)
_COMMENT = re.compile(r"(?m)\A(?:#[^\n]*\n)*")


@dataclass(slots=True)
class Modelfile:
    """The instructions of a Modelfile, in the form of Ollama's /api/create."""

    model: str = ""
    adapter: str = ""
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Modelfile:
    """The instructions in a file. Raises MissingError without it, InputError for an instruction we never write."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(f"no {path.name} in {path.parent.name}/", "Make one with `orchestrator export`.") from None
    return parse(text)


def parse(text: str) -> Modelfile:
    """The instructions in a text. Several `stop` parameters become a list; numbers and booleans become themselves."""
    found = Modelfile()
    for match in _INSTRUCTION.finditer(_COMMENT.sub("", text)):
        key, long = (match["key"] or ""), match["long"]
        if match["name"] == "PARAMETER":
            _parameter(found.parameters, key.strip(), long if long is not None else match["short"])
        else:
            _take(found, match["name"], key + (long if long is not None else match["short"].strip()))
    return found


def _take(found: Modelfile, name: str, value: str) -> None:
    match name:
        case "FROM":
            found.model = value
        case "ADAPTER":
            found.adapter = value
        case "TEMPLATE":
            found.template = value
        case "SYSTEM":
            found.system = value
        case _:
            raise InputError(f"the Modelfile says {name}, which cannot be pushed", "Use `ollama create` for this one.")


def _parameter(parameters: dict[str, Any], key: str, text: str) -> None:
    if key == "stop":
        parameters.setdefault("stop", []).append(_unquoted(text))
    else:
        parameters[key] = _number(text)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text.startswith('"') and text.endswith('"') else text


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _unquoted(text)
