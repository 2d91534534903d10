"""Is this tokenizer fit to train with? A broken one trains without complaint and answers rubbish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

PROBES = (
    "The capital of France is Paris, isn't it?",
    "新闻分类：上海今日气温骤降，市民添衣。",
    "In 2024, 3.14 × 1000 = 3,140; call 555-0199.",
    "two  spaces, a\ttab and\na newline",
)
"""English, Chinese, digits and white space: where tokenizers of converted or mislabelled models go wrong."""


def require_sound(folder: Path, tokenizer: Any, stop_words: Sequence[str]) -> None:
    """Raise InputError unless texts survive a round trip and agree with tokenizer.json, and stop words are tokens."""
    direct = _direct(folder)
    for text in PROBES:
        ids = tokenizer.encode(text, add_special_tokens=False)
        _require_round_trip(text, tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        if direct is not None and (expected := direct.encode(text, add_special_tokens=False).ids) != ids:
            raise InputError(
                f"the tokenizer of {folder.name} gives {ids[:6]}… for {text[:24]!r}, tokenizer.json {expected[:6]}…",
                "transformers loads it as the wrong class: set tokenizer_class to PreTrainedTokenizerFast in a copy.",
            )
    for word in stop_words:
        _require_known(tokenizer, word, folder)


def _direct(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    return Tokenizer.from_file(str(file)) if file.is_file() else None


def _require_round_trip(text: str, back: str) -> None:
    if back.strip() != text.strip():
        raise InputError(
            f"the tokenizer turns {text!r} into {back!r}",
            "Training would learn from damaged text; use another base model.",
        )


def _require_known(tokenizer: Any, word: str, folder: Path) -> None:
    if len(tokenizer.encode(word, add_special_tokens=False)) != 1:
        raise InputError(
            f"the template ends answers with {word!r}, which is no token of {folder.name}",
            "The template does not fit this model: choose another with model.template.",
        )
