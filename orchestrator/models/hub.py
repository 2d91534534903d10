"""Models of the Hugging Face hub and of ModelScope, through their own clients.

Mirrors (HF_ENDPOINT), the cache (HF_HOME, MODELSCOPE_CACHE) and tokens (HF_TOKEN, MODELSCOPE_API_TOKEN) come from the
environment only, so that no spec and no record can hold a secret.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from orchestrator.errors import InputError, MissingError

NAME = r"\w[\w.-]{0,95}"
REPOSITORY = re.compile(
    rf"(?P<source>hf|modelscope):(?!.*\.\.)(?P<id>{NAME}/{NAME})(@(?P<revision>[\w./-]{{1,255}}))?\Z", re.ASCII
)
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "README.md"]
"""No pickled weights and no Python code, unless the user turned that on."""


def parse(base: str) -> tuple[str, str, str | None]:
    """Source, repository id and revision. Raises InputError when it is not `hf:ORG/NAME[@REVISION]`."""
    match = REPOSITORY.match(base)
    if not match:
        raise InputError(
            f"model.base: cannot read {base!r}", "Write hf:ORG/NAME, hf:ORG/NAME@REVISION or modelscope:ORG/NAME."
        )
    return match["source"], match["id"], match["revision"]


def cached(base: str) -> Path | None:
    """The snapshot of a repository in the local cache, or None; never asks the network.

    The hub's cache is read as its documentation lays it out, since importing its client takes longer than a plan may.
    """
    source, repository, revision = parse(base)
    if source == "modelscope":
        root = Path(os.environ.get("MODELSCOPE_CACHE", Path.home() / ".cache/modelscope/hub")) / "models" / repository
        return root if (root / "config.json").is_file() else None
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache/huggingface"))
    root = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{repository.replace('/', '--')}"
    reference = root / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else (revision or "")
    snapshot = root / "snapshots" / commit
    return snapshot if commit and (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")) else None


def fetch(base: str) -> Path:
    """Download a repository, continuing where an earlier download stopped. Raises MissingError when that fails."""
    source, repository, revision = parse(base)
    try:
        if source == "modelscope":
            from modelscope import snapshot_download as from_modelscope

            return Path(from_modelscope(repository, revision=revision, allow_patterns=WANTED))
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repository, revision=revision, allow_patterns=WANTED))
    except Exception as error:
        raise unreachable(base, error) from error


def unreachable(name: str, error: Exception) -> MissingError:
    """What to say when a client failed: each raises a dozen kinds, all of which mean that it is not to be had."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    hint = "Check the name and the network; a mirror can be set with HF_ENDPOINT, a token with HF_TOKEN."
    return MissingError(f"cannot download {name}: {reason}", hint)
