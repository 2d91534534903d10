"""How something wrong is put into words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def quote(value: Any) -> str:
    """A value as its author wrote it, with its kind where that could be the mistake."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text '{value[:40]}{'…' if len(value) > 40 else ''}'"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping" if value else "an empty mapping"
    return str(value)


def one_of(choices: Iterable[str]) -> str:
    """The choices in a row, cut where nobody reads on."""
    names = list(choices)
    return ", ".join(names[:14]) + (f", … ({len(names)} in all)" if len(names) > 14 else "")


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a misspelt word most likely means, or None where nothing comes close."""
    names = {name.lower(): name for name in choices}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    return names[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    found = closest(word, choices)
    return f"; did you mean {found}?" if found else ""
