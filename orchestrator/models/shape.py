"""What a model's config.json and the headers of its safetensors tell of its size, in a folder, or on a hub before it is
downloaded; no weight is read."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json
from orchestrator.models import hub, sources
from orchestrator.models.weights import header

SETTINGS = [pattern for pattern in hub.WANTED if pattern != "*.safetensors"]
"""A few MB at most, nearly all of them the tokenizer's."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a forecast needs to know of a base model."""

    weights: int
    """Bytes of its weights as they are stored."""
    parameters: int
    matrices: tuple[tuple[str, int, int], ...]
    """(name of the module, outputs, inputs) of each linear layer that an adapter may go to."""
    hidden: int
    inner: int
    layers: int
    heads: int
    cached: int
    """Keys and values of one token in one layer."""
    vocabulary: int

    @property
    def width(self) -> int:
        """Bytes of one value."""
        return round(self.weights / self.parameters)


def read_model(folder: Path) -> Model | None:
    """The facts of a model folder, or None where its files are damaged or its configuration uses other names."""
    try:
        return _read(folder, _states(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # loading the model will say what is wrong with it; a forecast need not


def measured(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> Model | None:
    """The facts of a configuration and the headers of its weights, or None where the configuration uses other names."""
    try:
        return _measure(config.get("text_config", config), tensors)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _states(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of a folder's files."""
    states = ((file.name, file.stat()) for file in sorted(folder.iterdir()))
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@functools.lru_cache(maxsize=8)
def _read(folder: Path, states: tuple[tuple[str, int, int], ...]) -> Model:
    """The facts, read once for each state of the folder: a sweep asks before each of its trials."""
    config = read_json(folder / "config.json")
    tensors = [tensor for file in _weight_files(folder) for tensor in _tensors(file)]
    return _measure(config.get("text_config", config), tensors)


def _measure(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> Model:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    if not tensors:
        raise ValueError("no weights")
    return Model(
        weights=sum(tensor.bytes for tensor in tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        matrices=tuple((t.name.split(".")[-2], t.shape[0], t.shape[1]) for t in tensors if t.linear),
        hidden=hidden,
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        cached=2 * size * (config.get("num_key_value_heads") or heads),
        vocabulary=config["vocab_size"],
    )


class Tensor(NamedTuple):
    """An entry of a header."""

    name: str
    shape: Sequence[int]
    bytes: int

    @property
    def linear(self) -> bool:
        """Whether it is the matrix of a linear layer that an adapter may go to."""
        return len(self.shape) == 2 and ".layers." in self.name and self.name.endswith(".weight")


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _tensors(file: Path) -> Iterator[Tensor]:
    for name, entry in header(file)[1].items():
        start, end = entry["data_offsets"]
        yield Tensor(name, entry["shape"], end - start)


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
