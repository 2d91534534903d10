"""Words that agree with a number."""

from __future__ import annotations

_IRREGULAR = {"are": "is", "have": "has", "were": "was", "do": "does"}


def plural(number: float, one: str, many: str = "") -> str:
    """`one` for 1, else `many`, by default `one` with an s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun: `1 row`, `2 rows`, `3 entries`."""
    return f"{number} {plural(number, one, many)}"


def agreeing(number: float, predicate: str) -> str:
    """A predicate in the plural, its verb first, as it stands behind a number: `have tools` becomes `has tools`."""
    if number != 1:
        return predicate
    verb, _, rest = predicate.partition(" ")
    ending = "es" if verb.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{_IRREGULAR.get(verb, verb + ending)} {rest}".rstrip()
