"""The special tokens of a model folder, and whether llama.cpp will put BOS in front by itself. No transformers."""

from __future__ import annotations

from collections.abc import Mapping
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
    config = _tokenizer_config(model_folder)
    return SpecialTokens(bos=_text(config.get("bos_token")), eos=_text(config.get("eos_token")))


def converter_adds_bos(model_folder: Path) -> bool:
    """Whether a GGUF converted from the folder makes llama.cpp and Ollama start every prompt with BOS.

    As gguf's SpecialVocab decides it: `add_bos_token` of tokenizer_config.json, else the post-processor of
    tokenizer.json; failing both, llama.cpp's own default, which is yes for SentencePiece vocabularies only.
    """
    config, tokenizer = _tokenizer_config(model_folder), _json(model_folder / "tokenizer.json")
    if isinstance(chosen := config.get("add_bos_token"), bool):
        return chosen
    post = tokenizer.get("post_processor") or {}
    for processor in post.get("processors", [post]):
        if processor.get("type") == "TemplateProcessing":
            first = (processor.get("single") or [{}])[0].get("SpecialToken", {}).get("id")
            return first is not None and first == _text(config.get("bos_token"))
    model = tokenizer.get("model", {})
    return bool(model.get("byte_fallback")) if tokenizer else (model_folder / "tokenizer.model").is_file()


def _tokenizer_config(model_folder: Path) -> Mapping[str, Any]:
    file = model_folder / "tokenizer_config.json"
    if not file.is_file():
        raise MissingError(f"{model_folder} has no tokenizer_config.json", "Fetch the base model again.")
    return _json(file)


def _json(file: Path) -> Mapping[str, Any]:
    value = read_json(file) if file.is_file() else {}
    return value if isinstance(value, dict) else {}


def _text(token: Any) -> str | None:
    """A token is written as text, or as the fields of an AddedToken."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None
