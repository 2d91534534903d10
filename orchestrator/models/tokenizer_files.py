"""The tokenizer of a model folder, read without transformers: tokenizer.json, and the settings beside it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
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
