"""`python -m orchestrator.models.rebuild SOURCE.gguf FOLDER`: a llama-architecture GGUF back into a model folder.

transformers can dequantise the weights, but the tokenizer that it reads from a GGUF has the wrong special tokens and
a wrong decoder for byte-level BPE, so that one is built here from the GGUF's own metadata.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SPECIAL = 3  # gguf's TokenType.CONTROL


def main(source: Path, folder: Path) -> None:
    """Write config, weights (float32) and tokenizer of the GGUF into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = build_tokenizer(read_metadata(source))
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def read_metadata(source: Path) -> dict[str, Any]:
    """The metadata of a GGUF, as plain values."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(str(source)).fields.items()}


def build_tokenizer(metadata: dict[str, Any]) -> Any:
    """A fast tokenizer with SmolLM2's pre-tokenizer: digits one by one, then GPT-2's byte-level splitting."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    core = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges, byte_fallback=False, fuse_unk=False))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == SPECIAL]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=int(metadata["llama.context_length"]),
        clean_up_tokenization_spaces=False,
        chat_template=metadata["tokenizer.chat_template"],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
