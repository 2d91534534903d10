"""An answer that is known beforehand, or nearly: its tokens are read all at once, and count as far as the model would
have chosen them itself. So a draft changes how long an answer takes, and not what it is.

Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2023, in its greedy form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from orchestrator.lib.sequences import first_difference


@dataclass(frozen=True, slots=True)
class Draft:
    """What a prompt is likely to be answered with."""

    tokens: Sequence[int]
    """At least one, the one that ends the answer among them."""
    look: Callable[[Any, int], object]
    """Called with the logits (float32, one for each token of the vocabulary; overwritten by the next token) at each of
    them, and with its place among all that are looked at: those of the prompt come first."""
    own: Sequence[int] = ()
    """Tokens of the prompt that it is shown the same for before, counted from the prompt's end (−1 is its last)."""

    def choose(self, logits: Any, place: int) -> int:
        """The token that the model chooses at such a place, if it has the prompt's and the draft's up to there."""
        self.look(logits, place)
        return int(logits.argmax())

    def agreed(self, chosen: Sequence[int]) -> Sequence[int]:
        """Of what was chosen at all places, what the model says without a draft: all up to the first that is not the
        draft's, and with it."""
        chosen = chosen[len(self.own) :]
        return chosen[: 1 + first_difference(self.tokens[:-1], chosen)]


def until_end(tokens: Sequence[int], ends: Callable[[int], bool], limit: int) -> tuple[list[int], bool]:
    """An answer of such tokens, at most `limit` of them and without the one that ends it, and whether that is all."""
    answer = list(takewhile(lambda token: not ends(token), tokens[:limit]))
    return answer, len(answer) < len(tokens) or len(answer) >= limit


def check(
    drafts: Mapping[int, Draft], prompts: Sequence[Sequence[int]], read: Callable[..., Iterator[list[int]]]
) -> Iterator[tuple[int, Sequence[int]]]:
    """For each draft the index of its prompt, and the tokens that a model says with its help; `read` reads answers.

    One after the other: what a quantised model makes of a token depends a little on what is computed beside it.
    """
    order = list(drafts)
    if not order:
        return

    def choose(logits: Any, row: int, place: int) -> int:
        return drafts[order[row]].choose(logits, place)

    asked, tokens, own = zip(
        *((prompts[index], drafts[index].tokens, drafts[index].own) for index in order), strict=True
    )
    seen = read(asked, tokens, choose, own)
    for index, chosen in zip(order, seen, strict=True):
        yield index, drafts[index].agreed(chosen)
