"""Whether a GGUF may be shipped."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.evaluation.divergence import figures, worst
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.measure import Measurement
from orchestrator.evaluation.metric import DIVERGENCE, primary
from orchestrator.evaluation.parity import (
    all_equal,
    difference_sentence,
    repeats_itself,
    server_sentence,
    uncompared,
    uncompared_sentence,
)

_ROUNDING = 1e-9  # 100 × (0.80 − 0.77) is a little more than 3

_BLAMED = ("agreement", "divergence", "perplexity_rise", "repeating")
"""Failures that a file may have and another one of the same model not, and that have a cause to look for; with them,
whatever metric drops."""


@dataclass(frozen=True)
class Failure:
    """A limit that an artifact misses; value and limit are shares from 0 to 1, as in the spec."""

    artifact: str
    what: str
    sentence: str
    value: float | None = None
    limit: float | None = None


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
            _drop(artifact, primary(measurements[reference].metrics), measurements, gate, reference),
        )
    )
    return [failure for failure in found if failure]


def judge_own(
    measurements: Mapping[str, Measurement],
    judged: Sequence[str],
    names: Sequence[str],
    gate: Mapping[str, float],
    reference: str,
) -> list[Failure]:
    """The artifacts that lose more than `max_accuracy_drop` of a metric of the user's own against the reference."""
    found = (_drop(artifact, name, measurements, gate, reference) for name in names for artifact in judged)
    return [failure for failure in found if failure]


def judge_answers(reasons: Mapping[str, str | None]) -> list[Failure]:
    """The artifacts that nobody should be given; the reasons are those of `measure.useless`."""
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
            f"{risen(name, values, reference)}; the gate allows {100 * limit:.1f} %",
            rise,
            limit,
        )
        for name, value in values.items()
        if name not in lost and (rise := value / values[reference] - 1) > limit + _ROUNDING
    ]


def risen(artifact: str, values: Mapping[str, float], reference: str) -> str:
    """How an artifact's perplexity differs from the reference's, in words."""
    value, before = values[artifact], values[reference]
    return (
        f"{artifact} has perplexity {value:.2f} after {before:.2f} of {reference} ({100 * (value / before - 1):+.1f} %)"
    )


def with_causes(failures: Sequence[Failure], reports: Mapping[str, Mapping[str, Any]]) -> list[Failure]:
    """The failures, with a likely cause where the parity reports (artifact → counts) leave few.

    Where all prompts were those of training, neither template nor tokenizer can be blamed; where some were not
    compared, nothing is known of them.
    """
    refused = {failure.artifact for failure in failures if _has_a_cause(failure)}

    def explained(failure: Failure) -> Failure:
        found = reports.get(failure.artifact)
        if not _has_a_cause(failure) or not found or not all_equal(found):
            return failure
        cause = f"likely cause: {_suspect(failure.artifact, reports, refused)}"
        seen = f"the prompts of all {found['rows']} rows were those of training"
        return replace(failure, sentence=f"{failure.sentence}; {cause}, for {seen}")

    return [explained(failure) for failure in failures]


def _has_a_cause(failure: Failure) -> bool:
    return failure.what in _BLAMED or failure.what.endswith("_drop")


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
    artifact: str, metric: str, measurements: Mapping[str, Measurement], gate: Mapping[str, float], reference: str
) -> Failure | None:
    value, before = (measurements[name].metrics[metric].value for name in (artifact, reference))
    drop, limit = (before - value) / 100, gate.get("max_accuracy_drop", 1.0)
    if drop <= limit + _ROUNDING:
        return None
    sentence = (
        f"{artifact} loses {100 * drop:.1f} points of {metric} against {reference} "
        f"({value:.1f} after {before:.1f}); the gate allows {100 * limit:.1f}"
    )
    return Failure(artifact, f"{metric}_drop", sentence, drop, limit)
