"""A model of seven billion parameters, by which machines are measured: Qwen2.5-7B-Instruct, as its files say it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from orchestrator.models.shape import Model, Tensor, measured

NAME = "Qwen2.5-7B-Instruct"
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
"""From its config.json."""


def tensors() -> Iterator[Tensor]:
    """Its weights in bf16: 7,615,616,512 of them."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    cached = hidden // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    sizes = {"q": hidden, "k": cached, "v": cached}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, outputs in sizes.items():
            yield _tensor(f"{at}.self_attn.{name}_proj.weight", outputs, hidden)
            yield _tensor(f"{at}.self_attn.{name}_proj.bias", outputs)
        yield _tensor(f"{at}.self_attn.o_proj.weight", hidden, hidden)
        yield _tensor(f"{at}.mlp.gate_proj.weight", inner, hidden)
        yield _tensor(f"{at}.mlp.up_proj.weight", inner, hidden)
        yield _tensor(f"{at}.mlp.down_proj.weight", hidden, inner)
        yield _tensor(f"{at}.input_layernorm.weight", hidden)
        yield _tensor(f"{at}.post_attention_layernorm.weight", hidden)
    yield _tensor("model.norm.weight", hidden)
    for name in ("model.embed_tokens", "lm_head"):
        yield _tensor(f"{name}.weight", CONFIG["vocab_size"], hidden)


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name, list(shape), 2 * math.prod(shape))


def seven_b() -> Model:
    """What forecasts need to know of it."""
    model = measured(CONFIG, list(tensors()))
    assert model is not None
    return model
