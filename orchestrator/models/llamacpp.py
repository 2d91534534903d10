"""llama.cpp's converter: of the runtime's commit, from one pinned source archive, or the user's own checkout."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.lib.errors import MissingError
from orchestrator.lib.fetch import Pin, Progress, download, unpack_source
from orchestrator.lib.files import building, cache_folder

ARCHIVE = Pin(
    requirement="llama-cpp-python==0.3.36",
    filename="llama_cpp_python-0.3.36.tar.gz",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    bytes=76_589_250,
    source=True,
)
INSIDE = "vendor/llama.cpp/"
CONVERTER = "convert_hf_to_gguf.py"
PARTS = (CONVERTER, "convert_lora_to_gguf.py", "conversion/", "gguf-py/", "LICENSE")


def checkout(chosen: str | None) -> Path | None:
    """The llama.cpp folder to convert with, or None while the pinned one has not been fetched.

    `chosen` is the spec's `llama_cpp`; LLAMA_CPP_DIR comes next. Raises MissingError when that one has no converter.
    """
    own = chosen or os.environ.get("LLAMA_CPP_DIR")
    if own is None:
        folder = _pinned()
        return folder if folder.is_dir() else None
    folder = Path(own).expanduser().resolve()
    if not (folder / CONVERTER).is_file():
        raise MissingError(f"{own!r} has no {CONVERTER}", "Name a llama.cpp checkout, or leave llama_cpp out.")
    return folder


def fetch(chosen: str | None = None, progress: Progress = lambda done, total: None) -> Path:
    """`checkout`, after downloading the pinned archive if it is needed and not there yet."""
    if found := checkout(chosen):
        return found
    archive = download(ARCHIVE, cache_folder() / "downloads", progress)
    with building(_pinned()) as temporary:
        unpack_source(archive, temporary / "all", lambda name: name.startswith(tuple(INSIDE + part for part in PARTS)))
        for path in (temporary / "all" / INSIDE).iterdir():
            path.rename(temporary / path.name)
        _remove_empty(temporary / "all")
    return _pinned()


def version(folder: Path) -> str:
    """What to record: the pinned release, or the commit of a checkout of the user's own."""
    if folder == _pinned():
        return ARCHIVE.requirement
    head = folder / ".git" / "HEAD"
    return head.read_text().strip() if head.is_file() else str(folder)


def _pinned() -> Path:
    return cache_folder() / "llama.cpp-0.3.36"


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()
