"""A GGUF of a few kilobytes with a vocabulary and next to no weights, for a server that is to render and read text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.turns import SpecialTokens

if TYPE_CHECKING:
    from gguf import GGUFWriter

UNKNOWN = "<unk>"
WIDTH = 32
CONTEXT = 8192
"""Tokens of this vocabulary, which are bytes."""
PREFERRED = 50.0
"""The score of EOS behind an answer, and what a request adds to the answer's own."""
SHAPE = {
    "context_length": CONTEXT, "embedding_length": WIDTH, "block_count": 1, "feed_forward_length": WIDTH,
    "head_count": 1, "head_count_kv": 1, "layer_norm_rms_eps": 1e-5, "rope_dimension_count": WIDTH,
}  # fmt: skip
"""What GGUFWriter is told of the model."""
SQUARES = tuple(
    f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
)
NORMS = ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")
"""Its matrices and its norms."""
PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that stand for themselves in GPT-2's vocabulary (`bytes_to_unicode` in openai/gpt-2, encoder.py)."""


def write_model(target: Path, tokens: SpecialTokens, answers: Sequence[str] = ()) -> int:
    """Write a llama with one layer, and the 256 bytes, BOS, EOS and some answers as its vocabulary.

    Returns the number of the first answer. EOS follows an answer, and whatever a request prefers follows all else.
    """
    from gguf import GGUFWriter

    words = list(dict.fromkeys([*_bytes(), *filter(None, (tokens.bos, tokens.eos)), UNKNOWN]))
    first = len(words)
    words += map(_as_token, answers)
    writer = GGUFWriter(target, "llama")
    for key, value in SHAPE.items():
        getattr(writer, f"add_{key}")(value)
    _add_tokenizer(writer, words, tokens)
    for name, values in _weights(words, first, tokens.eos).items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return first


def _add_tokenizer(writer: GGUFWriter, words: Sequence[str], tokens: SpecialTokens) -> None:
    from gguf import TokenType

    special = {tokens.bos, tokens.eos, UNKNOWN}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([TokenType.CONTROL if word in special else TokenType.NORMAL for word in words])
    writer.add_token_merges(["a b"])
    writer.add_unk_token_id(words.index(UNKNOWN))
    for text, add in ((tokens.bos, writer.add_bos_token_id), (tokens.eos, writer.add_eos_token_id)):
        if text:
            add(words.index(text))
    writer.add_add_bos_token(False)


def _weights(words: Sequence[str], first: int, eos: str | None) -> Mapping[str, Any]:
    """Tensor → values: nothing but a vector that answers share, and that EOS has the highest score for."""
    import numpy as np

    table, scores = np.zeros((2, len(words), WIDTH), np.float32)
    table[first:, 0] = 1  # which RMS norm makes √WIDTH
    if eos:
        scores[words.index(eos), 0] = PREFERRED
    square, norm = np.zeros((WIDTH, WIDTH), np.float32), np.ones(WIDTH, np.float32)
    return {"token_embd": table, "output": scores, **dict.fromkeys(SQUARES, square), **dict.fromkeys(NORMS, norm)}


def _bytes() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, the plain ones first."""
    return [chr(byte) for byte in PLAIN] + [chr(256 + number) for number in range(256 - len(PLAIN))]


def _as_token(text: str) -> str:
    """A text as a vocabulary of GPT-2's kind spells it."""
    others = [byte for byte in range(256) if byte not in PLAIN]
    spelt = dict(zip([*PLAIN, *others], _bytes(), strict=True))
    return "".join(spelt[byte] for byte in text.encode())
