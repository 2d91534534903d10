"""The tokenizer of a model folder, read without transformers, and whether it is fit to train with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json

PROBES = (
    "The capital of France is Paris, isn't it?",
    "新闻分类：上海今日气温骤降，市民添衣。",
    "In 2024, 3.14 × 1000 = 3,140; call 555-0199.",
    "two  spaces, a\ttab and\na newline",
)
"""English, Chinese, digits and white space: where tokenizers of converted or mislabelled models go wrong."""
SUBTLE = (
    "I'LL SEE, we've DON'T",
    "    def f(x):\n        return x\n\n\n",
    " leading and trailing  ",
    "1234567890",
    "Cafe\u0301 ﬁ 👨\u200d👩\u200d👧 🙂",
    "Привет, สวัสดี नमस्ते a\u3000b\xa0c",
)
"""What two tokenizers of the same vocabulary may cut up in two ways, though both give it back as it was."""
SENTENCEPIECE = ("tokenizer.model", "added_tokens.json")
"""Files of a SentencePiece tokenizer that llama.cpp's converter reads; the first one tells that it is one."""
AGAIN = "Remove the model's folder, then copy or download it again."
OTHER = "The template does not fit this model: choose another with model.template."


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> Any:
    """The `tokenizers.Tokenizer` of tokenizer.json. Raises InputError for one that is damaged."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises plain Exception for whatever is wrong with the file
        raise InputError(f"model.base: tokenizer.json of {folder.name} is damaged: {error}", AGAIN) from None


def ids_of(tokenizer: Any, ends: Iterable[str] = ()) -> list[list[int]]:
    """The ids of all probes; `ends` are special words that stand between texts."""
    texts: Sequence[str] = (*PROBES, *SUBTLE, *(f"One{end}two 一{end} 二\n{end}" for end in ends))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file. Raises InputError for a damaged one."""
    try:
        found = read_json(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"model.base: {file.name} of {file.parent.name} is damaged: {error}", AGAIN) from None
    if not isinstance(found, dict):
        raise InputError(f"model.base: {file.name} of {file.parent.name} is no JSON object", AGAIN)
    return found


# ---- is it fit to train with? A broken one trains without complaint and answers rubbish


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
