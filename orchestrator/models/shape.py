"""What a model's config.json and the headers of its safetensors tell of its size; no weight is read."""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.lib.files import read_json

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit. A Git LFS pointer in place of a model would ask for far more."""


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


def header(file: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the weights of a safetensors file begin, and what is said of each tensor: eight bytes of length, then JSON
    (https://github.com/huggingface/safetensors, format). Raises ValueError, naming the file, for any other."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            found: Any = json.loads(stream.read(length)) if length <= MAX_HEADER else None
        return 8 + length, {name: entry for name, entry in found.items() if name != "__metadata__"}
    except (struct.error, ValueError, AttributeError):
        raise ValueError(f"{file.name} is no safetensors file") from None
