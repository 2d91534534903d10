"""Whether a GGUF may be shipped, and which one to ship."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.filesize import decimal

from orchestrator.evaluation.compare import Comparison
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.measure import Measurement

_ROUNDING = 1e-9  # 100 × (0.80 − 0.77) is a little more than 3


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
    agreements: Mapping[str, Interval],
    gate: Mapping[str, float],
    reference: str = "tuned",
) -> list[Failure]:
    """Every limit that one of the artifacts in `agreements` misses; an empty list lets all of them pass.

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


def judge_perplexity(values: Mapping[str, float], gate: Mapping[str, float], reference: str = "tuned") -> list[Failure]:
    """The artifacts whose perplexity is above the reference's by more than the share `max_perplexity_rise`."""
    limit = gate["max_perplexity_rise"]
    return [
        Failure(
            name,
            "perplexity_rise",
            f"{_risen(name, values, reference)}; the gate allows {100 * limit:.1f} %",
            rise,
            limit,
        )
        for name, value in values.items()
        if (rise := value / values[reference] - 1) > limit + _ROUNDING
    ]


def recommend_perplexity(
    values: Mapping[str, float], sizes: Mapping[str, int], refused: Collection[str], reference: str = "tuned"
) -> Recommendation | None:
    """The smallest artifact that the gate lets pass."""
    fit = [artifact for artifact in sizes if artifact in values and artifact not in refused]
    if not fit:
        return None
    artifact = min(fit, key=lambda name: sizes[name])
    about = f"{artifact} ({decimal(sizes[artifact])}) is the smallest file that passes the gate"
    return Recommendation(artifact, sizes[artifact], f"{about}: {_risen(artifact, values, reference)}")


def _risen(artifact: str, values: Mapping[str, float], reference: str) -> str:
    value, before = values[artifact], values[reference]
    return (
        f"{artifact} has perplexity {value:.2f} after {before:.2f} of {reference} ({100 * (value / before - 1):+.1f} %)"
    )


def with_causes(failures: Sequence[Failure], complaints: Mapping[str, Sequence[str]]) -> list[Failure]:
    """What parity complains of (artifact → sentences, none for a sound one), then the failures with a likely cause.

    Where the prompts were those of training, neither template nor tokenizer can be blamed.
    """
    parity = [Failure(artifact, "parity", sentence) for artifact, found in complaints.items() for sentence in found]
    return [*parity, *(_blamed(failure) if complaints.get(failure.artifact) == [] else failure for failure in failures)]


def recommend(
    comparisons: Mapping[str, Comparison], sizes: Mapping[str, int], refused: Collection[str] = ()
) -> Recommendation | None:
    """The smallest artifact that is not worse than the reference it was compared with; None where all are."""
    fit = [a for a, comparison in comparisons.items() if comparison.verdict != "worse" and a not in refused]
    if not (sized := [artifact for artifact in fit if artifact in sizes]):
        return None
    artifact = min(sized, key=lambda name: sizes[name])
    it = comparisons[artifact]
    sentence = (
        f"{artifact} ({decimal(sizes[artifact])}) is the smallest file whose loss against {it.b} cannot be told "
        f"from zero: {it.metric} {it.value_a:.1f} against {it.value_b:.1f} "
        f"({it.n} rows leave a loss of up to {max(0.0, -it.difference.low):.1f} points possible)"
    )
    return Recommendation(artifact, sizes[artifact], sentence)


def _blamed(failure: Failure) -> Failure:
    suspect = "conversion" if failure.artifact.endswith(("f16", "f32")) else "quantisation"
    cause = f"likely cause: {suspect}, for the prompts were those of training"
    return replace(failure, sentence=f"{failure.sentence}; {cause}")


def _agreement(artifact: str, agrees: Interval, gate: Mapping[str, float], reference: str) -> Failure | None:
    share, limit = agrees.value / 100, gate.get("min_agreement", 0.0)
    if share >= limit - _ROUNDING:
        return None
    asked = f"the gate asks for {100 * limit:.1f} %"
    sentence = f"{artifact} answers {100 * share:.1f} % of the rows as {reference} does; {asked}"
    return Failure(artifact, "agreement", sentence, share, limit)


def _drop(
    artifact: str, measured: Measurement, expected: Measurement, gate: Mapping[str, float], reference: str
) -> Failure | None:
    metric = "accuracy" if "accuracy" in expected.metrics else "rougeL"
    value, before = measured.metrics[metric].value, expected.metrics[metric].value
    drop, limit = (before - value) / 100, gate.get("max_accuracy_drop", 1.0)
    if drop <= limit + _ROUNDING:
        return None
    sentence = (
        f"{artifact} loses {100 * drop:.1f} points of {metric} against {reference} "
        f"({value:.1f} after {before:.1f}); the gate allows {100 * limit:.1f}"
    )
    return Failure(artifact, f"{metric}_drop", sentence, drop, limit)
