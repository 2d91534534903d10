"""Mistral's later vocabulary (tekken), which mistral-common keeps as ranks of byte strings, as a tokenizer.json."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

NAMED = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "<pad>", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
)  # fmt: skip
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
Json = dict[str, Any]


def tokenizer_of(tekken: Mapping[str, Any]) -> Json:
    """tokenizer.json of a tekken.json: its special tokens first, then the byte strings by rank."""
    settings = tekken["config"]
    special, size = settings["default_num_special_tokens"], settings["default_vocab_size"]
    names = [*NAMED, *(f"<SPECIAL_{number}>" for number in range(len(NAMED), special))]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in tekken["vocab"][: size - special]}
    vocab = {name: number for number, name in enumerate(names)}
    vocab |= {printable(token): special + rank for token, rank in ranks.items()}
    split = {"type": "Split", "pattern": {"Regex": settings["pattern"]}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": number, "content": name, **FLAGS} for number, name in enumerate(names)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": vocab, "merges": [[printable(a), printable(b)] for a, b in merges(ranks)],
        },
    }  # fmt: skip


def merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pair that each token of several bytes is last merged from, in the order of the ranks."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            first, second = _parts(token, rank, ranks)
            yield first, second


def _parts(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> Sequence[bytes]:
    """A token's bytes, merged as far as tokens of lower rank take them."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        at = min(pair for pair in pairs if pair[0] < rank)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def printable(token: bytes) -> str:
    """Bytes in the letters that GPT-2 writes them with."""
    return "".join(_LETTERS[byte] for byte in token)


def _letters() -> dict[int, str]:
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + number) for number, byte in enumerate(others)}


_LETTERS = _letters()
