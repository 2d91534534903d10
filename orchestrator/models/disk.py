"""How much disk a run takes, forecast from the size of its base model. Pure: sizes in, bytes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.models.shape import Model

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
