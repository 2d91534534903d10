"""An answer that is known beforehand, or nearly: its tokens are read all at once, and count as far as the model would
have chosen them itself. So a draft changes how long an answer takes, and not what it is.

Leviathan et al., Fast Inference from Transformers via Speculative Decoding, 2023, in its greedy form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

from orchestrator.lib.sequences import first_difference
from orchestrator.models.reading import Reading, log_probabilities


class Seen(NamedTuple):
    """What a model makes of one place."""

    chosen: int
    """The token that it goes on with."""
    logs: Mapping[int, float]
    """The log-probability, in nats, of each token with which a choice goes on."""


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
    choices: Sequence[Sequence[int]] = ()
    """Answers whose log-probabilities are wanted, too."""
    weigh: Callable[[list[float]], object] | None = None
    """Called with these, in nats."""

    def of(self, prompt: Sequence[int]) -> Reading:
        """What is read of a prompt: this draft first, then the choices."""
        return Reading(prompt, [self.tokens, *self.choices], self.own)

    def see(self, logits: Any, place: int, followers: Sequence[int]) -> Seen:
        """What the model makes of a place of that, if it has the tokens up to there; `followers` go on there."""
        if place < len(self.own) + len(self.tokens):
            self.look(logits, place)
        return Seen(int(logits.argmax()), log_probabilities(logits, followers))

    def agreed(self, chosen: Sequence[int]) -> Sequence[int]:
        """Of what was chosen at all places, what the model says without a draft: all up to the first that is not the
        draft's, and with it."""
        chosen = chosen[len(self.own) :][: len(self.tokens)]
        return chosen[: 1 + first_difference(self.tokens[:-1], chosen)]


def until_end(tokens: Sequence[int], ends: Callable[[int], bool], limit: int) -> tuple[list[int], bool]:
    """An answer of such tokens, at most `limit` of them and without the one that ends it, and whether that is all."""
    answer = list(takewhile(lambda token: not ends(token), tokens[:limit]))
    return answer, len(answer) < len(tokens) or len(answer) >= limit


def check(
    drafts: Mapping[int, Draft], prompts: Sequence[Sequence[int]], read: Callable[..., Iterator[list[Seen]]]
) -> Iterator[tuple[int, Sequence[int]]]:
    """For each draft the index of its prompt, and the tokens that a model says with its help; `read` reads answers."""
    order = list(drafts)
    if not order:
        return
    readings = [draft.of(prompts[index]) for index, draft in drafts.items()]
    followers = [reading.followers(choices(reading)) for reading in readings]

    def look(logits: Any, row: int, place: int) -> Seen:
        return drafts[order[row]].see(logits, place, followers[row][place])

    for index, reading, seen in zip(order, readings, read(readings, look), strict=True):
        draft = drafts[index]
        if draft.weigh:
            draft.weigh(reading.likelihoods(choices(reading), [place.logs for place in seen]))
        yield index, draft.agreed([place.chosen for place in seen])


def choices(reading: Reading) -> range:
    """The numbers of the choices among the answers that a draft has read."""
    return range(1, len(reading.answers))
