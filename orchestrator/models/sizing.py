"""Which trainings of a model fit a GPU, with how many rows at a time, and how long they take. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.models.memory import MemoryInput, train
from orchestrator.models.shape import Model
from orchestrator.models.situation import total

BATCHES = (64, 32, 16, 8, 4, 2, 1)
HALF: Mapping[str, Any] = {"bf16": True}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "LoRA": {"finetuning_type": "lora"},
    "QLoRA (quantization_bit: 4)": {"finetuning_type": "lora", "quantization_bit": 4},
    "full": {"finetuning_type": "full", "pure_bf16": True},
}
"""How a model may be trained, and the arguments that say so."""
SPARE = 0.92
"""Of a GPU's memory: its driver and the fragments of the caching allocator have the rest."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether one way of training fits a GPU."""

    way: str
    batch: int
    """The most rows at a time that fit; 0 where not even one does."""
    needed: int
    """Bytes with so many rows, or with one where it does not fit."""


def gpu_bytes(text: str) -> int:
    """The memory of a card as people write it, `24GB` or `24`. Raises ValueError for anything else.

    Vendors write GB for GiB: a card of 24 GB has 24 GiB.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no size of a GPU's memory; write it like 24GB")
    return int(float(match[1]) * 2**30)


def fits(model: Model, arguments: Mapping[str, Any], tokens: int, gpu: int) -> list[Fit]:
    """Every way of training a model on one GPU of so many bytes, for rows of so many tokens."""
    return [_fit(model, way, {**arguments, **HALF, **changes}, tokens, gpu) for way, changes in WAYS.items()]


def _fit(model: Model, way: str, arguments: Mapping[str, Any], tokens: int, gpu: int) -> Fit:
    for batch in BATCHES:
        chosen = {**arguments, "per_device_train_batch_size": batch}
        needed = total(train(model, MemoryInput(chosen, tokens, devices=1)))
        if needed <= SPARE * gpu:
            return Fit(way, batch, needed)
    return Fit(way, 0, needed)


@dataclass(frozen=True, slots=True)
class Work:
    """How much is to be trained."""

    rows: int
    tokens: int
    """Of a row, at most."""
    epochs: float

    def hours(self, tokens_per_second: float) -> float:
        """How long that takes at a speed, were every row as long as it may be."""
        return self.rows * self.tokens * self.epochs / tokens_per_second / 3600
