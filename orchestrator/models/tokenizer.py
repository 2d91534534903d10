"""Is this tokenizer fit to train with? A broken one trains without complaint and answers rubbish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.models.tokenizer_files import PROBES, load

OTHER = "The template does not fit this model: choose another with model.template."


def require_sound(folder: Path, tokenizer: Any, stop_words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The stop words that are tokens of transformers' tokenizer, and those that are none.

    Raises InputError unless texts survive a round trip, their ids are those of tokenizer.json, and answers can end.
    """
    direct = load(folder) if (folder / "tokenizer.json").is_file() else None
    for text in PROBES:
        ids = tokenizer.encode(text, add_special_tokens=False)
        require_round_trip(text, tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        if direct is not None and (expected := direct.encode(text, add_special_tokens=False).ids) != ids:
            raise InputError(
                f"the tokenizer of {folder.name} gives {ids[:6]}… for {text[:24]!r}, tokenizer.json {expected[:6]}…",
                f"transformers loads it as {type(tokenizer).__name__}, which it is not: choose another model, or copy "
                "it with a tokenizer_class that loads tokenizer.json as it is.",
            )
    is_token = lambda word: len(tokenizer.encode(word, add_special_tokens=False)) == 1  # noqa: E731
    return known_stop_words(stop_words, is_token, folder.name)


def require_round_trip(text: str, back: str) -> None:
    """Raise InputError where a text came back as another one."""
    if back.strip() != text.strip():
        raise InputError(
            f"the tokenizer turns {text!r} into {back!r}",
            "Training would learn from damaged text; use another base model.",
        )


def known_stop_words(words: Sequence[str], is_token: Callable[[str], bool], quoted: str) -> tuple[list[str], list[str]]:
    """The stop words that are tokens, and those that the model does not have, which are left out of what is served.

    `words` begins with the one that ends an answer. Raises InputError where that one is no token: no answer would end.
    """
    if not words:
        return [], []
    end, *further = words
    if not is_token(end):
        raise InputError(f"the template ends answers with {end!r}, which is no token of {quoted}", OTHER)
    return [end, *filter(is_token, further)], [word for word in further if not is_token(word)]
