"""How far one model's expectations lie from another's, token by token of answers that both are given. Pure.

At each token of an answer a model gives every token of the vocabulary a probability. The Kullback–Leibler divergence of
a candidate's probabilities q from a reference's p, Σ p·log(p/q), in nats, is 0 only where both are the same; a hundred
answers that are equal to the letter still have one. (Kullback & Leibler, On Information and Sufficiency, 1951.)

Of the reference its likeliest tokens are kept, and what all the others have together. What is computed from that is
never more than the divergence over the whole vocabulary (the log-sum inequality), and less only by what happens among
the tokens that the reference thinks least of.

Answers of a few tokens, most of them certain, tell neighbouring files apart only on thousands of rows. The same models
expect something at every token of the prompt as well, and are less certain there, so that the same rows tell more: the
text that each prompt has for itself is read, too. What all prompts begin and end with alike is the template's frame and
instructions: one context, however many rows have it, and tokens that no model is ever asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.intervals import Array, Interval
from orchestrator.evaluation.metric import DIVERGENCE, PROBABILITY_CHANGE, READING_DIVERGENCE
from orchestrator.lib.sequences import first_difference

MOST = 256
"""Tokens kept of each place of an answer."""
FEWEST = 16
ROOM = 4_000_000
"""Tokens kept in all, as far as FEWEST allows: 32 MB."""
PLACES = 16
"""Places of a prompt that are read."""
PLACES_IN_ALL = 4_000
"""Those of all prompts, as far as one each allows: what is expected there is kept."""
WORST = 3
"""Rows that are named."""
RESAMPLES = 9999
SMALLEST = 1e-30
"""What stands for a probability of nothing, which has no logarithm."""


@dataclass(frozen=True)
class Expectations:
    """What a model expects at each place of some answers, row after row; logarithms of probabilities, in nats."""

    tokens: NDArray[np.int32]
    """Places × kept: the likeliest tokens, in no order."""
    logs: NDArray[np.float32]
    """The same shape: theirs."""
    rest: NDArray[np.float32]
    """Places: of all other tokens together."""
    chosen: NDArray[np.float32]
    """Places: of the token that the answer has there."""


def own_places(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Of each prompt the places that are read, spread evenly over its own text and counted from its end (−1 is its last
    token). None where prompts are alike, and so none of a single one."""
    begin = _alike([list(prompt) for prompt in prompts])
    end = _alike([list(reversed(prompt)) for prompt in prompts])
    most = max(1, min(PLACES, PLACES_IN_ALL // max(1, len(prompts))))
    # the first token of a text that differs still has the context of all others
    return [_spread(begin + 1 - len(prompt), -end, most) for prompt in prompts]


def tokens_read(row: Mapping[str, Any]) -> list[int]:
    """The tokens of a row that are read, in the order in which models read them: those of the prompt at the places in
    `own`, where it has any, then the answer's."""
    return [*(row["prompt"][place] for place in row.get("own", ())), *row["answer"]]


def kept(places: int) -> int:
    """How many tokens are kept of each place, for so many places."""
    return max(FEWEST, min(MOST, ROOM // max(1, places)))


def expectation(logits: Array, chosen: int, keep: int) -> tuple[Any, ...]:
    """One place's row of Expectations: tokens, logs, rest, chosen."""
    tokens = np.argpartition(logits, -min(keep, len(logits)))[-keep:].astype(np.int32)
    logs, rest, log = _log_probabilities(logits, tokens, chosen)
    return tokens, logs, rest, log


def expectations(places: Iterable[tuple[Any, ...]]) -> Expectations:
    """All places together."""
    tokens, logs, rest, chosen = zip(*places, strict=True)
    return Expectations(
        np.array(tokens, dtype=np.int32), *(np.array(of, dtype=np.float32) for of in (logs, rest, chosen))
    )


def at_place(reference: Expectations, place: int, logits: Array, chosen: int) -> tuple[float, float]:
    """A candidate's divergence from the reference at one place, in nats, and its log-probability of the token there.

    Not finite where the logits are not.
    """
    logs, rest, log = _log_probabilities(logits, reference.tokens[place], chosen)
    p = np.append(reference.logs[place], reference.rest[place]).astype(np.float64)
    q = np.append(logs, rest)
    return max(0.0, float(np.sum(np.exp(p) * (p - q)))), log


def row(
    name: str,
    places: Sequence[tuple[float, float]],
    before: NDArray[np.float32],
    own: Sequence[int] | None = None,
) -> dict[str, Any]:
    """One row's figures: the mean divergence of its answer's tokens in nats, and the probability of the whole answer
    by the candidate and by the reference, whose log-probabilities are `before`. With `own`, the tokens of the prompt
    that were read before those, the mean over all of them as well. None stands for what is no number."""
    nats, logs = (np.array(column, dtype=np.float64) for column in zip(*places, strict=True))
    first = len(own or ())
    return {
        "id": name,
        "tokens": len(places) - first,
        DIVERGENCE: _finite(float(nats[first:].mean())),
        "probability": _finite(float(np.exp(logs[first:].sum()))),
        "before": float(np.exp(before[first:].astype(np.float64).sum())),
        **({} if own is None else {"read": len(places), READING_DIVERGENCE: _finite(float(nats.mean()))}),
    }


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Interval]:
    """Over the rows: the mean divergence in nats a token, of the answers and of all that was read, and by how many
    points of probability the answers became less likely or more. None at all where a row has no number."""
    if not _all_have(rows, DIVERGENCE, "probability"):
        return {}
    change = [100 * (of["probability"] - of["before"]) for of in rows]
    measured = (by for by in (DIVERGENCE, READING_DIVERGENCE) if _all_have(rows, by))
    return {**{by: mean([of[by] for of in rows]) for by in measured}, PROBABILITY_CHANGE: mean(change)}


def mean(values: Sequence[float]) -> Interval:
    """A mean with its 95 % interval over the rows: bias-corrected and accelerated bootstrap, since divergences are
    skewed (Efron, Better Bootstrap Confidence Intervals, 1987)."""
    from scipy.stats import bootstrap

    sample = np.array(values, dtype=np.float64)
    value = float(sample.mean())
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Interval(value, value, value)
    found = bootstrap((sample,), np.mean, n_resamples=RESAMPLES, batch=1000, rng=np.random.default_rng(0))
    low, high = map(float, found.confidence_interval)
    return Interval(value, min(low, value), max(high, value))


def worst(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows that diverge most, those without a number first."""
    by_size = sorted(rows, key=lambda of: (of[DIVERGENCE] is not None, -(of[DIVERGENCE] or 0.0)))
    return [dict(of) for of in by_size[:WORST]]


def ranked_by(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The divergence that artifacts are ranked by: that of all that was read where all of them have it, else that of
    the answers."""
    measured = [table for table in rows.values() if _all_have(table, DIVERGENCE)]
    return READING_DIVERGENCE if all(_all_have(table, READING_DIVERGENCE) for table in measured) else DIVERGENCE


def ranking(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Artifacts from the nearest to the furthest, each with the interval of how much further than the one before it
    lies, over the same rows; `apart` says whether that interval leaves zero out."""
    by = ranked_by(rows)
    measured = {name: np.array([of[by] for of in table]) for name, table in rows.items() if _all_have(table, by)}
    order = sorted(measured, key=lambda name: float(measured[name].mean()))
    ranked: list[dict[str, Any]] = [{"artifact": name} for name in order[:1]]
    for nearer, further in pairwise(order):
        gap = mean((measured[further] - measured[nearer]).tolist())
        ranked.append({"artifact": further, "further": gap.to_json(), "apart": gap.low > 0})
    return ranked


def _log_probabilities(logits: Array, tokens: NDArray[np.int32], chosen: int) -> tuple[Array, float, float]:
    """In float64, whatever the logits are in: those of some tokens, of all others together, and of one.

    Each exponential is computed once, and the others are added up without the some: a difference from 1 would lose
    what is small.
    """
    above = logits.astype(np.float64)
    above -= above.max()
    shares = np.exp(above)
    log_whole = math.log(shares.sum()) if np.isfinite(above.max()) else math.nan
    shares[tokens] = 0.0
    left = float(shares.sum())
    rest = math.log(max(left * math.exp(-log_whole), SMALLEST)) if math.isfinite(left + log_whole) else math.nan
    return above[tokens] - log_whole, rest, float(above[chosen]) - log_whole


def _all_have(rows: Sequence[Mapping[str, Any]], *names: str) -> bool:
    """Whether there are rows, and each has these numbers."""
    return bool(rows) and all(of.get(name) is not None for of in rows for name in names)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _alike(texts: Sequence[list[int]]) -> int:
    """With how many tokens all texts begin alike."""
    return first_difference(min(texts), max(texts))


def _spread(start: int, stop: int, most: int) -> list[int]:
    every = range(start, stop)
    if len(every) <= most:
        return list(every)
    return [every[(2 * number + 1) * len(every) // (2 * most)] for number in range(most)]
