"""Whether a GGUF may be shipped, and which one to ship."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, takewhile
from typing import Any

from rich.filesize import decimal

from orchestrator.evaluation.compare import Comparison, rounded
from orchestrator.evaluation.divergence import figures, worst
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.metric import DIVERGENCE, primary
from orchestrator.evaluation.metrics import Measurement
from orchestrator.evaluation.noninferiority import Loss
from orchestrator.evaluation.parity import (
    all_equal,
    difference_sentence,
    repeats_itself,
    server_sentence,
    uncompared,
    uncompared_sentence,
)

_ROUNDING = 1e-9  # 100 × (0.80 − 0.77) is a little more than 3

_BLAMED = ("agreement", "accuracy_drop", "rougeL_drop", "divergence", "perplexity_rise", "repeating")
"""Failures that a file may have and another one of the same model not, and that have a cause to look for."""


@dataclass(frozen=True)
class Failure:
    """A limit that an artifact misses; value and limit are shares from 0 to 1, as in the spec."""

    artifact: str
    what: str
    sentence: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Recommendation:
    """The GGUF to ship."""

    artifact: str
    bytes: int
    sentence: str


def judge(
    measurements: Mapping[str, Measurement],
    agreements: Mapping[str, Interval | None],
    gate: Mapping[str, float],
    reference: str = "tuned",
) -> list[Failure]:
    """Every limit that one of the artifacts in `agreements` misses; an empty list lets all of them pass.

    Where no row was answered there is no agreement (None), and nothing to compare it with.

    `min_agreement` asks for equal answers, `max_accuracy_drop` bounds the loss of accuracy (ROUGE-L for generation).
    """
    found = (
        failure
        for artifact, agrees in agreements.items()
        for failure in (
            _agreement(artifact, agrees, gate, reference),
            _drop(artifact, measurements[artifact], measurements[reference], gate, reference),
        )
    )
    return [failure for failure in found if failure]


def judge_answers(reasons: Mapping[str, str | None]) -> list[Failure]:
    """The artifacts that nobody should be given; the reasons are those of `answers.useless`."""
    return [Failure(name, "answers", f"{name}: {reason}") for name, reason in reasons.items() if reason]


def judge_parity(artifact: str, found: Mapping[str, Any], agreement: float, gate: Mapping[str, float]) -> list[Failure]:
    """What a parity report speaks against: other prompts than training's, answers that only repeat themselves, and
    more rows that were not compared than `max_uncompared` allows. `agreement` is in percent.
    """
    failures = []
    if different := difference_sentence(artifact, found):
        failures.append(Failure(artifact, "parity", different))
    if served := server_sentence(artifact, found):
        failures.append(Failure(artifact, "server_parity", served))
    if repeats_itself(found, agreement):
        said = f"{artifact}: {found['repeating']} of {found['rows']} answers only repeat themselves"
        failures.append(Failure(artifact, "repeating", said))
    return [*failures, *_uncompared(artifact, found, gate)]


def _uncompared(artifact: str, found: Mapping[str, Any], gate: Mapping[str, float]) -> list[Failure]:
    """What was not compared is not proven."""
    missing, limit = uncompared(found), gate.get("max_uncompared", 0.0)
    share = missing / found["rows"] if found["rows"] else 0.0
    if share <= limit + _ROUNDING:
        return []
    sentence = f"{uncompared_sentence(artifact, found)}; the gate allows {100 * limit:.1f} %"
    return [Failure(artifact, "uncompared", sentence, share, limit)]


def judge_perplexity(values: Mapping[str, float], gate: Mapping[str, float], reference: str = "tuned") -> list[Failure]:
    """The artifacts whose perplexity is above the reference's by more than the share `max_perplexity_rise`, and those
    for which it is no finite number."""
    limit = gate["max_perplexity_rise"]
    lost = [name for name, value in values.items() if not math.isfinite(value)]
    broken = [
        Failure(name, "perplexity", f"{name} has perplexity {values[name]}: it computes nothing") for name in lost
    ]
    if reference in lost:
        return broken
    return broken + [
        Failure(
            name,
            "perplexity_rise",
            f"{_risen(name, values, reference)}; the gate allows {100 * limit:.1f} %",
            rise,
            limit,
        )
        for name, value in values.items()
        if name not in lost and (rise := value / values[reference] - 1) > limit + _ROUNDING
    ]


def recommend_perplexity(
    values: Mapping[str, float], sizes: Mapping[str, int], refused: Collection[str], reference: str = "tuned"
) -> Recommendation | None:
    """The smallest artifact that the gate lets pass."""
    fit = [artifact for artifact in sizes if artifact in values and artifact not in refused]
    if not fit:
        return None
    artifact = min(fit, key=lambda name: sizes[name])
    about = f"{artifact} ({decimal(sizes[artifact])}) is the smallest file that passes the quality gate"
    return Recommendation(artifact, sizes[artifact], f"{about}: {_risen(artifact, values, reference)}")


def _risen(artifact: str, values: Mapping[str, float], reference: str) -> str:
    value, before = values[artifact], values[reference]
    return (
        f"{artifact} has perplexity {value:.2f} after {before:.2f} of {reference} ({100 * (value / before - 1):+.1f} %)"
    )


def with_causes(failures: Sequence[Failure], reports: Mapping[str, Mapping[str, Any]]) -> list[Failure]:
    """The failures, with a likely cause where the parity reports (artifact → counts) leave few.

    Where all prompts were those of training, neither template nor tokenizer can be blamed; where some were not
    compared, nothing is known of them.
    """
    refused = {failure.artifact for failure in failures if failure.what in _BLAMED}

    def explained(failure: Failure) -> Failure:
        found = reports.get(failure.artifact)
        if failure.what not in _BLAMED or not found or not all_equal(found):
            return failure
        cause = f"likely cause: {_suspect(failure.artifact, reports, refused)}"
        seen = f"the prompts of all {found['rows']} rows were those of training"
        return replace(failure, sentence=f"{failure.sentence}; {cause}, for {seen}")

    return [explained(failure) for failure in failures]


def _suspect(artifact: str, asked: Collection[str], refused: Collection[str]) -> str:
    """A file is quantised from one that was converted: where that one passes, quantisation did it, and where it fails
    as well, conversion did. Of one that was not asked nobody knows."""
    if _is_unquantised(artifact) or artifact.endswith("adapter"):
        return "conversion"
    unquantised = {name for name in asked if _is_unquantised(name)}
    if not unquantised:
        return "conversion or quantisation"
    return "conversion" if unquantised & set(refused) else "quantisation"


def _is_unquantised(artifact: str) -> bool:
    """By its name; bf16 is one."""
    return artifact.endswith(("f16", "f32"))


def judge_divergence(rows: Mapping[str, Sequence[Mapping[str, Any]]], limit: float | None) -> list[Failure]:
    """The artifacts whose mean divergence is above the limit (None for no limit), in nats a token, with the rows that
    diverge most; and those of which some row has none, since they compute no numbers there."""
    failures = []
    for name, table in rows.items():
        if not (found := figures(table)):
            said = f"{name} gives no probabilities on rows {_worst(table)}: it computes nothing there"
            failures.append(Failure(name, "divergence", said))
        elif limit is not None and (value := found[DIVERGENCE].value) > limit + _ROUNDING:
            said = f"{name} diverges by {value:.4f} nats a token, most on rows {_worst(table)}; the gate allows {limit}"
            failures.append(Failure(name, "divergence", said, value, limit))
    return failures


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(row["id"] for row in worst(rows))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A GGUF that may be recommended."""

    artifact: str
    bytes: int
    loss: Loss
    divergence: float | None = None
    """From what it was made from, in nats a token."""


AS_GOOD = "as good"
"""The verdict on an artifact that is shown to lose no more than is allowed."""


def loss_sentence(it: Comparison, loss: Loss) -> str:
    """What an artifact may lose, in words."""
    values = f"{it.value_a:.1f} against {it.value_b:.1f}"
    limit, at_most = f"{loss.limit:.1f} points of {it.metric}", max(0.0, loss.at_most)
    if loss.shown:
        return (
            f"{it.a} is shown to lose at most {limit} against {it.b}: {values} (n = {it.n}, 95 % sure: {at_most:.2f})"
        )
    return (
        f"{it.a} is not shown to lose at most {limit} against {it.b}: {values}, it may lose {at_most:.1f} "
        f"(n = {it.n}); {rows_that_would_do(loss)}"
    )


A_LITTLE = 1.1
"""How much larger a file may be that is taken because it is nearer to the model."""


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """The file to ship: from the largest one that is shown to keep the limit down to the smallest, as long as each is
    shown to, and then the nearest one of those that are a little larger. Where none is shown to, the nearest of all.

    Walking down and ending at the first file that is not shown to keep the limit is what holds the error at the level
    of one test, however many files there are (a fixed sequence: Maurer, Hothorn & Lehmacher, 1995).
    """
    by_size = sorted(candidates, key=lambda one: -one.bytes)
    if not by_size:
        return None
    shown = list(takewhile(lambda one: one.loss.shown, dropwhile(lambda one: not one.loss.shown, by_size)))
    if not shown:
        return min(by_size, key=_distance)
    smallest = shown[-1]
    nearer = (one for one in shown if one.divergence is not None and one.bytes <= A_LITTLE * smallest.bytes)
    return smallest if smallest.divergence is None else min(nearer, key=_distance)


def _distance(candidate: Candidate) -> tuple[float, int]:
    """By divergence; where that was not measured by size, the largest first."""
    return (math.inf if candidate.divergence is None else candidate.divergence), -candidate.bytes


def recommend(
    comparisons: Mapping[str, Comparison], candidates: Iterable[Candidate], refused: Collection[str] = ()
) -> Recommendation | None:
    """The file to ship, of those that the gate lets pass and that were not seen to be worse; None where all were."""
    passed = [one for one in candidates if one.artifact not in refused]
    fit = [one for one in passed if one.loss.shown or comparisons[one.artifact].verdict != "worse"]
    if not (best := choose(fit)):
        return None
    about = _shown(best, fit) if best.loss.shown else _not_shown(best, fit)
    return Recommendation(best.artifact, best.bytes, f"{about} ({_against(comparisons[best.artifact])})")


def _shown(best: Candidate, fit: Sequence[Candidate]) -> str:
    said = (
        f"{best.artifact} ({decimal(best.bytes)}) is shown to lose at most {best.loss.limit:.1f} points "
        f"(95 % sure: {max(0.0, best.loss.at_most):.2f})"
    )
    smaller = [one for one in fit if one.bytes < best.bytes]
    if not smaller:
        return said
    nearest = max(smaller, key=lambda one: one.bytes)
    if nearest.loss.shown:
        return f"{said}, and is nearer to the model than {nearest.artifact}, which is little smaller"
    return f"{said}; {nearest.artifact} may lose {nearest.loss.at_most:.1f}, {rows_that_would_do(nearest.loss)}"


def _not_shown(best: Candidate, fit: Sequence[Candidate]) -> str:
    needed = [one.loss for one in fit if one.loss.rows_needed]
    would_do = rows_that_would_do(min(needed, key=lambda of: of.rows_needed or 0) if needed else best.loss)
    how = "the largest" if best.divergence is None else f"the nearest to the model (divergence {best.divergence:.4f})"
    return (
        f"no file is shown to lose at most {best.loss.limit:.1f} points, {would_do}; "
        f"{best.artifact} ({decimal(best.bytes)}) is {how} and may lose {best.loss.at_most:.1f}"
    )


def _against(it: Comparison) -> str:
    return f"{it.metric} {it.value_a:.1f} against {it.value_b:.1f} of {it.b}, {it.n} rows"


def rows_that_would_do(loss: Loss) -> str:
    """How many rows would show that the limit is kept, in words."""
    if loss.rows_needed is None:
        return "and more rows would not help unless it does better on them"
    return f"about {rounded(loss.rows_needed)} rows would tell"


def _agreement(artifact: str, agrees: Interval | None, gate: Mapping[str, float], reference: str) -> Failure | None:
    if agrees is None:
        return None
    share, limit = agrees.value / 100, gate.get("min_agreement", 0.0)
    if share >= limit - _ROUNDING:
        return None
    asked = f"the gate asks for {100 * limit:.1f} %"
    sentence = f"{artifact} answers {100 * share:.1f} % of the rows as {reference} does; {asked}"
    return Failure(artifact, "agreement", sentence, share, limit)


def _drop(
    artifact: str, measured: Measurement, expected: Measurement, gate: Mapping[str, float], reference: str
) -> Failure | None:
    metric = primary(expected.metrics)
    value, before = measured.metrics[metric].value, expected.metrics[metric].value
    drop, limit = (before - value) / 100, gate.get("max_accuracy_drop", 1.0)
    if drop <= limit + _ROUNDING:
        return None
    sentence = (
        f"{artifact} loses {100 * drop:.1f} points of {metric} against {reference} "
        f"({value:.1f} after {before:.1f}); the gate allows {100 * limit:.1f}"
    )
    return Failure(artifact, f"{metric}_drop", sentence, drop, limit)
