"""Words that agree with a number."""

from __future__ import annotations

import re
from collections.abc import Iterator

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


_COUNTED = re.compile(r"\{\} (?:[\w-]+ )??(?P<noun>\w+)(?P<ending>s)\b(?: (?:\w+ly )?(?P<verb>[a-z]+))?")
"""What a template counts, and the verb behind it: `{} rows call`, `{} held-out rows nearly repeat`."""


def of_one(template: str) -> Iterator[str]:
    """What a template in the plural may become where a number that is filled in is 1: `{} row calls tools`.

    Some of these forms are no English; no text matches them.
    """
    if template[:1].islower():
        yield agreeing(1, template)
    for found in _COUNTED.finditer(template):
        one = template[: found.start("ending")] + template[found.end("ending") :]
        yield one
        if verb := found["verb"]:
            start, end = found.span("verb")
            yield f"{template[:start]}{agreeing(1, verb)}{template[end:]}"
            yield f"{one[: start - 1]}{agreeing(1, verb)}{one[end - 1 :]}"
