"""What is known of a base model before it is downloaded: from its folder, or from its hub. No weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json
from orchestrator.models import hub, sources
from orchestrator.models.shape import Model, Tensor, measured, read_model

SETTINGS = [pattern for pattern in hub.WANTED if pattern != "*.safetensors"]
"""A few MB at most, nearly all of them the tokenizer's."""


@dataclass(frozen=True, slots=True)
class Known:
    """A base model as far as it is known here."""

    folder: Path | None = None
    """Where its settings and its tokenizer lie; of one that is not here, in the cache of the hub's client."""
    model: Model | None = None
    """Its size; None also for a configuration that uses other names."""
    download: int = 0
    """Bytes that a fetch would download; 0 for a model that is here."""
    problem: str = ""
    """Why nothing is known, and what to do."""


def known(base: str, project: Path, runs_dir: Path | None = None) -> Known:
    """What is known of a base model. Of one that is not here, the Hugging Face hub is asked; nothing is raised for one
    that does not answer."""
    folder = sources.here(base, project, runs_dir)
    if folder is not None:
        return Known(folder, read_model(folder))
    if not base.startswith("hf:"):
        return Known(problem=f"{base} is not here; `orchestrator model fetch {base}` brings it")
    try:
        return outline(base)
    except MissingError as error:
        return Known(problem=f"{error.message}\n{error.hint}")


def outline(base: str) -> Known:
    """What the Hugging Face hub tells of `hf:ORG/NAME[@REVISION]`: its settings and the headers of its weights.

    The headers are read with range requests, 100 kB a file. Raises MissingError where the hub does not answer, or has
    no such model.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    _, repository, revision = hub.parse(base)
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=SETTINGS))
        api = HfApi()
        files = {file.path: getattr(file, "size", 0) for file in api.list_repo_tree(repository, revision=folder.name)}
        headers = api.get_safetensors_metadata(repository, revision=folder.name).files_metadata
    except Exception as error:
        raise hub.unreachable(base, error) from error
    tensors = [
        Tensor(name, found.shape, found.data_offsets[1] - found.data_offsets[0])
        for file in sorted(headers)
        for name, found in headers[file].tensors.items()
    ]
    return Known(folder, measured(read_json(folder / "config.json"), tensors), download_bytes(files))


def download_bytes(files: Mapping[str, int]) -> int:
    """Bytes of those files of a repository that a fetch asks for."""
    return sum(size for name, size in files.items() if any(fnmatch(name, pattern) for pattern in hub.WANTED))
