"""Models of the Hugging Face hub and of ModelScope, through their own clients.

Mirrors (HF_ENDPOINT), the cache (HF_HOME, MODELSCOPE_CACHE) and tokens (HF_TOKEN, MODELSCOPE_API_TOKEN) come from the
environment only, so that no spec and no record can hold a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import cache_folder, read_json, write_text

NAME = r"\w[\w.-]{0,95}"
REPOSITORY = re.compile(
    rf"(?P<source>hf|modelscope):(?!.*\.\.)(?P<id>{NAME}/{NAME})(@(?P<revision>[\w./-]{{1,255}}))?\Z", re.ASCII
)
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*", "README.md"]
"""What is downloaded of a model: no pickled weights, and no Python code."""
CODE = ["*.py", "*.tiktoken"]
"""What else is, where `model.trust_remote_code` is on: the model's own code, and what only such code reads."""


def parse(base: str) -> tuple[str, str, str | None]:
    """Source, repository id and revision. Raises InputError when it is not `hf:ORG/NAME[@REVISION]`."""
    match = REPOSITORY.match(base)
    if not match:
        raise InputError(
            f"model.base: cannot read {base!r}", "Write hf:ORG/NAME, hf:ORG/NAME@REVISION or modelscope:ORG/NAME."
        )
    return match["source"], match["id"], match["revision"]


def cached(base: str) -> Path | None:
    """The snapshot of a repository in the local cache, None where it is not there whole; never asks the network.

    The hubs' caches are read as their clients lay them out, since importing one takes longer than a plan may.
    """
    source, repository, revision = parse(base)
    places = _of_modelscope(repository, revision) if source == "modelscope" else _of_hugging_face(repository, revision)
    return next((folder for folder in places if _is_whole(folder, base)), None)


def _of_hugging_face(repository: str, revision: str | None) -> Iterator[Path]:
    """Where the snapshot of a revision lies; nowhere while it is not known which commit that is."""
    root = _hugging_face_cache() / f"models--{repository.replace('/', '--')}"
    reference = root / "refs" / (revision or "main")
    if commit := reference.read_text().strip() if reference.is_file() else (revision or ""):
        yield root / "snapshots" / commit


def _hugging_face_cache() -> Path:
    """HF_HUB_CACHE as huggingface_hub/constants.py makes it."""
    home = os.environ.get("HF_HOME", os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/huggingface")
    old_name = os.environ.get("HUGGINGFACE_HUB_CACHE", f"{home}/hub")
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE", old_name))).expanduser()


def _of_modelscope(repository: str, revision: str | None) -> Iterator[Path]:
    """Where modelscope_hub/_download.py puts a model, then the layouts of older clients that it and modelscope's
    `find_reusable_legacy_repo_dir` go on with; those know of no revision."""
    cache = Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()
    yield cache / "models" / repository.replace("/", "--") / "snapshots" / (revision or "master")
    owner, name = repository.split("/")
    for root in (cache / "models", cache / "hub/models", cache, cache / "hub"):
        yield from (root / owner / written for written in (name.replace(".", "___"), name))


def _is_whole(folder: Path, base: str) -> bool:
    """Whether a download came to its end; one that other tools made is known by what its index of weights names."""
    if _note(base).exists() or not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    try:
        named = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return any(folder.glob("*.safetensors")) and all((folder / str(name)).is_file() for name in named)


def _note(base: str) -> Path:
    """What says that a download was begun and did not end."""
    return cache_folder() / "unfinished" / quote(base, safe="")


@contextmanager
def _noted(base: str) -> Iterator[None]:
    """Leave a note until the block has ended well, since neither client tells a part of a repository from the whole."""
    write_text(_note(base), f"{base}\n")
    yield
    _note(base).unlink(missing_ok=True)


def fetch(base: str, with_code: bool = False) -> Path:
    """Download a repository, continuing where an earlier download stopped. Raises MissingError when that fails."""
    source, repository, revision = parse(base)
    wanted = [*WANTED, *(CODE if with_code else ())]
    try:
        with _noted(base):
            if source == "modelscope":
                from modelscope import snapshot_download as from_modelscope

                return Path(from_modelscope(repository, revision=revision, allow_patterns=wanted))
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:
        raise unreachable(base, error) from error


def unreachable(name: str, error: Exception) -> MissingError:
    """What to say when a client failed: each raises a dozen kinds, all of which mean that it is not to be had."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    message = f"cannot download {name}: {reason}"
    source, _, repository = name.partition(":")
    if source == "hf" and ":" not in repository:
        other = f"modelscope:{repository.partition('@')[0]}"
        return MissingError(
            message,
            f"Try a mirror with `export HF_ENDPOINT=https://hf-mirror.com`, or {other}; private ones need HF_TOKEN.",
        )
    return MissingError(
        message, "Check the name and the network; a mirror can be set with HF_ENDPOINT, a token with HF_TOKEN."
    )
