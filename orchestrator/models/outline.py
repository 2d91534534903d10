"""What a hub tells of a model that is not on this machine: its settings, its tokenizer, its size. No weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from orchestrator.lib.files import read_json
from orchestrator.models import hub
from orchestrator.models.shape import Model, Tensor, measured

SETTINGS = [pattern for pattern in hub.WANTED if pattern != "*.safetensors"]
"""A few MB at most, nearly all of them the tokenizer's."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A model of a hub without its weights."""

    folder: Path
    """Its settings and its tokenizer, in the cache of the hub's client."""
    model: Model | None
    """What forecasts need to know; None for a configuration that uses other names."""
    download: int
    """Bytes of all that a fetch would download."""


def outline(base: str) -> Outline:
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
    return Outline(folder, measured(read_json(folder / "config.json"), tensors), download_bytes(files))


def download_bytes(files: Mapping[str, int]) -> int:
    """Bytes of those files of a repository that a fetch asks for."""
    return sum(_wanted(files, hub.WANTED))


def _wanted(files: Mapping[str, int], patterns: Sequence[str]) -> Iterator[int]:
    return (size for name, size in files.items() if any(fnmatch(name, pattern) for pattern in patterns))
