"""A new project: the files that make a folder one, copied from those that are shipped with the tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.files import write_text
from orchestrator.render import PACKAGED

SCHEMA = "spec.schema.json"
COPIED = {
    "spec.yaml": "templates/project/spec.yaml",
    "Makefile": "templates/project/Makefile",
    ".gitignore": "templates/project/gitignore",
    "datasets/news/train.json": "datasets/news/train.json",
    "datasets/news/eval.json": "datasets/news/eval.json",
    "datasets/news/README.md": "datasets/news/README.md",
}
"""File of the project → the file it is copied from, inside the installed package or beside it in a checkout."""


def create(folder: Path) -> list[Path]:
    """Write a project that runs and return its files. Raises InputError rather than replace one that is there."""
    texts = _texts()
    if there := [name for name in texts if (folder / name).exists()]:
        raise InputError(f"{folder} already has {', '.join(there)}", "Name a new folder.")
    try:
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise InputError(
            f"cannot write to {str(folder)!r}: {error.strerror}", "Name a folder you may write to."
        ) from None
    return [folder / name for name in texts]


def _texts() -> Mapping[str, str]:
    from orchestrator.spec.reference import json_schema

    copies = {name: _shipped(source).read_text(encoding="utf-8") for name, source in COPIED.items()}
    return {**copies, SCHEMA: json.dumps(json_schema(), ensure_ascii=False, indent=1) + "\n"}


def _shipped(name: str) -> Path:
    """A shipped file; the folders that hold templates/ hold datasets/ as well."""
    return next(path for path in (folder.parent / name for folder in PACKAGED) if path.is_file())
