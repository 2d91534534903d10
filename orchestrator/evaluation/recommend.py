"""Which GGUF to ship."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile

from rich.filesize import decimal

from orchestrator.evaluation.compare import Comparison, rounded
from orchestrator.evaluation.gate import risen
from orchestrator.evaluation.noninferiority import Loss


@dataclass(frozen=True)
class Recommendation:
    """The GGUF to ship."""

    artifact: str
    bytes: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A GGUF that may be recommended."""

    artifact: str
    bytes: int
    loss: Loss
    divergence: float | None = None
    """From what it was made from, in nats a token."""


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


def recommend_perplexity(
    values: Mapping[str, float], sizes: Mapping[str, int], refused: Collection[str], reference: str = "tuned"
) -> Recommendation | None:
    """The smallest artifact that the gate lets pass."""
    fit = [artifact for artifact in sizes if artifact in values and artifact not in refused]
    if not fit:
        return None
    artifact = min(fit, key=lambda name: sizes[name])
    about = f"{artifact} ({decimal(sizes[artifact])}) is the smallest file that passes the quality gate"
    return Recommendation(artifact, sizes[artifact], f"{about}: {risen(artifact, values, reference)}")
