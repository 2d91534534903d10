"""What a model asks of a machine: which trainings fit a GPU, how long they take, how much disk a run takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


# ---- disk


BITS = {
    "f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5008, "q6_k": 6.5633, "q5_k_m": 5.7036, "q5_k_s": 5.5704,
    "q5_0": 5.5704, "q5_1": 6.0, "q4_k_m": 4.8944, "q4_k_s": 4.6672, "q4_0": 4.6672, "q4_1": 5.0, "q3_k_l": 4.2979,
    "q3_k_m": 3.9960, "q3_k_s": 3.6429, "q2_k": 3.1593, "q2_k_s": 2.9697, "iq4_nl": 4.6818, "iq4_xs": 4.4597,
    "iq3_m": 3.7628, "iq3_s": 3.6606, "iq3_xs": 3.4977, "iq3_xxs": 3.2548, "iq2_m": 2.9294, "iq2_s": 2.7403,
    "iq2_xs": 2.5882, "iq2_xxs": 2.3824, "iq1_m": 2.1460, "iq1_s": 2.0042,
}  # fmt: skip
"""Bits a weight, embeddings included: llama.cpp's tools/quantize/README.md measures them on Llama 3.1 8B. q5_0 and q4_0
have blocks as large as q5_k_s and q4_k_s; q5_1 and q4_1 are their blocks' bits."""
BLOCK = 256
"""Weights a block of a K-quant; rows that it does not divide get a type with blocks of 32 instead."""
INSTEAD = {"q6_k": 8.5, "q5_k_m": 6.0, "q5_k_s": 6.0, "q4_k_m": 5.5, "q4_k_s": 5.5, "q3_k_l": 4.5, "q3_k_m": 4.5,
           "q3_k_s": 4.5, "q2_k": 4.5}  # fmt: skip
"""Bits of what llama.cpp falls back to (llama_tensor_get_type of src/llama-quant.cpp), the embeddings to q8_0."""


def gguf_bytes(model: Model, kind: str) -> int:
    """Bytes of a GGUF of one type."""
    weights, embeddings = model.parameters, model.vocabulary * model.hidden
    if kind in INSTEAD and model.hidden % BLOCK:
        return int((embeddings * BITS["q8_0"] + (weights - embeddings) * INSTEAD[kind]) / 8)
    return int(weights * BITS[kind] / 8)


def run_bytes(model: Model, kinds: Sequence[str]) -> Mapping[str, int]:
    """What a run leaves on the project's disk: the merged model, and each GGUF, that of full precision among them."""
    wanted = list(dict.fromkeys([*kinds, *(() if set(kinds) & {"f32", "f16", "bf16"} else ("f16",))]))
    return {"merged": model.weights, **{f"GGUF {kind}": gguf_bytes(model, kind) for kind in wanted}}


def seven_b() -> Model:
    """A model of seven billion parameters, by which machines are measured: Qwen2.5-7B-Instruct, in bf16."""
    hidden, inner, cached, layers = 3584, 18944, 512, 28
    matrices = (
        ("q_proj", hidden, hidden), ("k_proj", cached, hidden), ("v_proj", cached, hidden), ("o_proj", hidden, hidden),
        ("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner),
    )  # fmt: skip
    count = 7_615_616_512
    return Model(2 * count, count, layers * matrices, hidden, inner, layers, 28, 2 * cached, 152_064)
