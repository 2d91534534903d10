"""How far a classifier's own probabilities can be trusted, and how many rows they are good enough for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.intervals import Array, Interval, draw_counts, percentile

ROWS_PER_BIN = 20
"""With fewer rows to a bin, the error of a perfectly calibrated model is mostly chance."""
WANTED = 0.95
"""Accuracy that the rows which are answered must reach."""
FOLDS = 5
_CHANCES = 200


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of an artifact's confidence; percentages over n rows."""

    n: int
    ece: Interval
    """Expected calibration error of the probabilities as they are."""
    scaled_ece: Interval
    """The same after temperature scaling, each row by a temperature that others were used to find."""
    least_ece: float
    """What a perfectly calibrated model with these confidences shows on so many rows, on average: chance alone."""
    equal_width: tuple[float, float]
    """ECE before and after scaling over bins of equal width, for comparison with papers."""
    temperature: float
    """For all rows: what probabilities are to be computed with from now on. Above 1 the model was too sure."""
    answerable: Interval
    """Share of rows that can be answered, the surest first, at WANTED accuracy."""
    threshold: float | None
    """The confidence from which on they are answered, 0 to 1; None where no row can be."""
    accuracy: float
    """Of the most likely label."""

    @property
    def sentence(self) -> str:
        """The same in words."""
        scaled = (
            f"ECE {self.ece.value:.1f} points, {self.scaled_ece.value:.1f} with temperature {self.temperature:.2f} "
            f"({self.least_ece:.1f} would be chance)"
        )
        if self.threshold is None:
            return f"{scaled}; no share of the rows can be answered at {100 * WANTED:.0f} % accuracy"
        share = f"{self.answerable.value:.0f} % of the rows ({self.answerable.low:.0f}–{self.answerable.high:.0f})"
        sure = f"those with a confidence from {self.threshold:.2f} on"
        return f"{scaled}; {share} can be answered at {100 * WANTED:.0f} % accuracy, {sure}"

    def to_json(self) -> dict[str, Any]:
        """Every field and the sentence."""
        figures = {"ece": self.ece, "scaled_ece": self.scaled_ece, "answerable": self.answerable}
        return {
            "n": self.n,
            **{name: interval.to_json() for name, interval in figures.items()},
            "least_ece": self.least_ece,
            "equal_width": dict(zip(("ece", "scaled_ece"), self.equal_width, strict=True)),
            "temperature": self.temperature,
            "threshold": self.threshold,
            "accuracy": self.accuracy,
            "sentence": self.sentence,
        }


def calibrate(likelihoods: Array, truth: Array, seed: int = 0) -> Calibration:
    """From log-likelihoods (rows × labels, nats) and each row's label (its column, −1 for none of them)."""
    temperature = fitted_temperature(likelihoods, truth)
    right = likelihoods.argmax(axis=1) == truth
    plain = probabilities(likelihoods).max(axis=1)
    crossed = _cross_scaled(likelihoods, truth, seed).max(axis=1)
    sure = probabilities(likelihoods, temperature).max(axis=1)
    _, threshold = answerable(sure, right)
    return Calibration(
        len(truth),
        _interval(plain, right, expected_calibration_error, seed),
        _interval(crossed, right, expected_calibration_error, seed),
        _by_chance(crossed, seed),
        (equal_width_error(plain, right), equal_width_error(crossed, right)),
        temperature,
        _interval(sure, right, lambda c, r: 100 * answerable(c, r)[0], seed),
        threshold,
        100 * float(right.mean()),
    )


def probabilities(likelihoods: Array, temperature: float = 1.0) -> Array:
    """Of each label among the known ones, 0 to 1; rows × labels."""
    from scipy.special import softmax

    return np.asarray(softmax(likelihoods / temperature, axis=1))


def fitted_temperature(likelihoods: Array, truth: Array) -> float:
    """The temperature at which the right labels are most likely, from 0.05 to 20.

    Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks, ICML 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    known = truth >= 0
    if not known.any():
        return 1.0
    rows, labels = likelihoods[known], truth[known].astype(int)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(rows / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(rows)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def expected_calibration_error(confidence: Array, right: Array) -> float:
    """Mean distance of confidence and accuracy over bins of equally many rows, the least sure first; 0 to 100 points.

    There are n / ROWS_PER_BIN bins, 5 at least and the usual 15 at most. Rows of equal confidence count alike, in
    whichever bin they lie. Nguyen & O'Connor, Posterior calibration and exploratory analysis for natural language
    processing models, EMNLP 2015, section 3; less biased than bins of equal width: Roelofs, Cain, Shlens & Mozer,
    Mitigating bias in calibration error estimation, AISTATS 2022.
    """
    levels, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    accuracy = np.bincount(place, right) / counts
    gaps = np.repeat(levels - accuracy, counts)
    return 100 * sum(abs(float(part.sum())) for part in np.array_split(gaps, _bins(right))) / len(right)


def equal_width_error(confidence: Array, right: Array) -> float:
    """The same over bins of equal width, as most papers have it; 0 to 100 points.

    Naeini, Cooper & Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
    """
    bins = _bins(right)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidence - right, minlength=bins)
    return 100 * float(np.abs(gaps).sum()) / len(right)


def _bins(right: Array) -> int:
    return min(max(len(right) // ROWS_PER_BIN, 5), 15)


def _by_chance(confidence: Array, seed: int) -> float:
    generator = np.random.default_rng(seed)
    draws = [(generator.random(len(confidence)) < confidence).astype(np.float64) for _ in range(_CHANCES)]
    return float(np.mean([expected_calibration_error(confidence, right) for right in draws]))


def answerable(confidence: Array, right: Array, wanted: float = WANTED) -> tuple[float, float | None]:
    """The largest share of rows, the surest first, of which `wanted` are right; and the confidence it begins at.

    Rows of equal confidence are answered together or not at all.
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_its_kind = np.append(sure[1:] != sure[:-1], True)
    enough = np.flatnonzero((accuracy >= wanted - 1e-9) & last_of_its_kind)
    if not len(enough):
        return 0.0, None
    return (int(enough[-1]) + 1) / len(order), float(sure[enough[-1]])


def _cross_scaled(likelihoods: Array, truth: Array, seed: int) -> Array:
    """Each row's probabilities at the temperature of the other folds: what scaling is worth on rows it has not seen."""
    fold = np.random.default_rng(seed).permutation(len(truth)) % min(FOLDS, len(truth))
    scaled = np.empty_like(likelihoods)
    for number in np.unique(fold):
        here = fold == number
        others = ~here if (~here).any() else here
        scaled[here] = probabilities(likelihoods[here], fitted_temperature(likelihoods[others], truth[others]))
    return scaled


def _interval(confidence: Array, right: Array, figure: Any, seed: int) -> Interval:
    """The figure with a percentile bootstrap over the rows."""
    n = len(right)
    draws = [
        figure(np.repeat(confidence, counts), np.repeat(right, counts))
        for block in draw_counts(n, seed)
        for counts in block.astype(int)
    ]
    return percentile(float(figure(confidence, right)), np.array(draws), n)
