"""The special tokens of a model folder, and whether llama.cpp will put BOS in front by itself. No transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import MissingError
from orchestrator.files import read_json


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The texts of a tokenizer's begin and end tokens; None where it has none."""

    bos: str | None
    eos: str | None


def special_tokens(model_folder: Path) -> SpecialTokens:
    """BOS and EOS of a model folder. Raises MissingError when it holds no tokenizer_config.json."""
    file = model_folder / "tokenizer_config.json"
    if not file.is_file():
        raise MissingError(f"{model_folder} has no tokenizer_config.json", "Fetch the base model again.")
    config = value if isinstance(value := read_json(file), dict) else {}
    return SpecialTokens(bos=_text(config.get("bos_token")), eos=_text(config.get("eos_token")))


def converter_adds_bos(model_folder: Path) -> bool:
    """Whether a GGUF converted from the folder makes llama.cpp and Ollama start every prompt with BOS.

    As its gguf package reads the tokenizer's files; where they say nothing, llama.cpp's own default holds, which is yes
    for SentencePiece vocabularies only.
    """
    from gguf import SpecialVocab

    found = SpecialVocab(model_folder).add_special_token.get("bos")
    if found is not None:
        return bool(found)
    tokenizer = model_folder / "tokenizer.json"
    if tokenizer.is_file():
        return bool(read_json(tokenizer).get("model", {}).get("byte_fallback"))
    return (model_folder / "tokenizer.model").is_file()


def _text(token: Any) -> str | None:
    """A token is written as text, or as the fields of an AddedToken."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None
