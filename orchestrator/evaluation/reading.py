"""Which tokens of prompts are read beside those of the answers: the text that each prompt has for itself. Pure.

Answers of a few tokens, most of them certain, tell neighbouring files apart only on thousands of rows. The same models
expect something at every token of the prompt as well, and are less certain there, so that the same rows tell more.
What all prompts begin and end with alike is the template's frame and instructions: one context, however many rows have
it, and tokens that no model is ever asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

Tokens = Sequence[int]

MOST = 16
"""Places of a prompt that are read."""
MOST_IN_ALL = 4_000
"""Places of all prompts, as far as one each allows: what is expected there is kept."""


def own_places(prompts: Sequence[Tokens]) -> list[list[int]]:
    """Of each prompt the places that are read, spread evenly over its own text and counted from its end (−1 is its last
    token). None where prompts are alike, and so none of a single one."""
    begin = _alike([list(prompt) for prompt in prompts])
    end = _alike([list(reversed(prompt)) for prompt in prompts])
    most = max(1, min(MOST, MOST_IN_ALL // max(1, len(prompts))))
    # the first token of a text that differs still has the context of all others
    return [_spread(begin + 1 - len(prompt), -end, most) for prompt in prompts]


def tokens_read(row: Mapping[str, Any]) -> list[int]:
    """The tokens of a row that are read, in the order in which models read them: those of the prompt at the places in
    `own`, where it has any, then the answer's."""
    return [*(row["prompt"][place] for place in row.get("own", ())), *row["answer"]]


def _alike(texts: Sequence[list[int]]) -> int:
    """With how many tokens all texts begin alike."""
    first, last = min(texts), max(texts)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _spread(start: int, stop: int, most: int) -> list[int]:
    every = range(start, stop)
    if len(every) <= most:
        return list(every)
    return [every[(2 * number + 1) * len(every) // (2 * most)] for number in range(most)]
