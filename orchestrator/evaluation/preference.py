"""Figures of models that are not judged by their answers: preferences, rewards, and perplexity. Pure.

A preference is what a model gives its two answers: log-likelihoods, or the rewards of a reward model. The implicit
reward of an answer is β·(log p(answer) − log p_reference(answer)): Rafailov et al., Direct Preference Optimization
(2023), equation 5. Intervals are bootstraps over the held-out rows.
"""

from __future__ import annotations

import numpy as np

from orchestrator.evaluation.intervals import Array, Interval, bootstrap, draw_counts, percentile

ACCURACY = "preference_accuracy"
REWARD_ACCURACY = "reward_accuracy"
MARGIN = "reward_margin"
PERPLEXITY = "perplexity"


def preferred(pairs: Array, name: str = ACCURACY, seed: int = 0) -> dict[str, Interval]:
    """How often the chosen answer is given more than the rejected one, in %; `pairs` is rows × (chosen, rejected).

    On implicit rewards it is LLaMA-Factory's `rewards/accuracies`.
    """
    return _mean(name, 100 * (pairs[:, 0] > pairs[:, 1]).astype(np.float64), seed)


def margin(pairs: Array, seed: int = 0) -> dict[str, Interval]:
    """By how much on average, in units of the reward: LLaMA-Factory's `rewards/margins`."""
    return _mean(MARGIN, pairs[:, 0] - pairs[:, 1], seed)


def ranked(scores: Array, desirable: Array, name: str = ACCURACY, seed: int = 0) -> dict[str, Interval]:
    """How often a desirable answer is given more than an undesirable one, over all such pairs of rows, in percent.

    This is the area under the ROC curve; ties count half. Both kinds must occur.
    """
    order = np.argsort(scores, kind="stable")
    given, liked = scores[order], desirable[order].astype(np.float64)
    first, last = np.searchsorted(given, given, "left"), np.searchsorted(given, given, "right")

    def area(counts: Array) -> Array:
        disliked = counts * (1 - liked)
        below = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(disliked, axis=1)], axis=1)
        won = (counts * liked * (below[:, first] + below[:, last]) / 2).sum(axis=1)
        pairs = (counts * liked).sum(axis=1) * disliked.sum(axis=1)
        return np.asarray(100 * won / np.where(pairs > 0, pairs, np.nan))

    draws = np.concatenate([area(counts) for counts in draw_counts(len(scores), seed)])
    value = float(area(np.ones((1, len(scores))))[0])
    return {name: percentile(value, draws[np.isfinite(draws)], len(scores))}  # a draw of one kind has no pairs


def ranked_margin(scores: Array, desirable: Array, seed: int = 0) -> dict[str, Interval]:
    """Mean reward of the desirable answers less that of the undesirable ones."""
    liked = desirable.astype(np.float64)
    statistics = np.stack([scores * liked, liked, scores * (1 - liked), 1 - liked], axis=1)

    def difference(sums: Array) -> dict[str, Array]:
        few = np.maximum(sums, 1.0)  # a resample without one of the kinds counts it as zero
        return {MARGIN: sums[:, 0] / few[:, 1] - sums[:, 2] / few[:, 3]}

    return bootstrap(statistics, difference, seed, unbounded=(MARGIN,))


def perplexity(likelihoods: Array, tokens: Array, seed: int = 0) -> dict[str, Interval]:
    """exp of the mean negative log-likelihood of a token, over all tokens of all texts; 1 is the least."""
    statistics = np.stack([-likelihoods, tokens], axis=1)
    return bootstrap(
        statistics, lambda sums: {PERPLEXITY: np.exp(sums[:, 0] / sums[:, 1])}, seed, unbounded=(PERPLEXITY,)
    )


def _mean(name: str, values: Array, seed: int) -> dict[str, Interval]:
    return bootstrap(values[:, None], lambda sums: {name: sums[:, 0] / len(values)}, seed, unbounded=(MARGIN,))
