"""What a model's config.json and the headers of its safetensors tell of its size; no weight is read."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from orchestrator.files import read_json


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
    """The facts of a model folder, or None for an architecture whose configuration uses other names."""
    config = read_json(folder / "config.json")
    config = config.get("text_config", config)
    tensors = [entry for file in _weight_files(folder) for entry in _header(file).items()]
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        size = config.get("head_dim") or hidden // heads
        return Model(
            weights=sum(end - start for _, (_, start, end) in tensors),
            parameters=sum(math.prod(shape) for _, (shape, _, _) in tensors),
            matrices=tuple(
                (name.split(".")[-2], shape[0], shape[1]) for name, (shape, _, _) in tensors if _is_linear(name, shape)
            ),
            hidden=hidden,
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            cached=2 * size * (config.get("num_key_value_heads") or heads),
            vocabulary=config["vocab_size"],
        )
    except (KeyError, TypeError, IndexError):
        return None


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _header(file: Path) -> dict[str, tuple[list[int], int, int]]:
    """Tensor → shape and place: eight bytes of length, then JSON (https://github.com/huggingface/safetensors)."""
    with file.open("rb") as stream:
        entries = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    return {name: (entry["shape"], *entry["data_offsets"]) for name, entry in entries.items() if name != "__metadata__"}


def _is_linear(name: str, shape: list[int]) -> bool:
    return len(shape) == 2 and ".layers." in name and name.endswith(".weight")
