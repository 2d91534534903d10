"""What was found, as the summary file of score and judge has it: plain JSON, the recommendation among it. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.evaluation import divergence
from orchestrator.evaluation.compare import Comparison
from orchestrator.evaluation.metric import DIVERGENCE, METRICS
from orchestrator.evaluation.noninferiority import Loss
from orchestrator.evaluation.recommend import Candidate, Recommendation, recommend, rows_that_would_do
from orchestrator.evaluation.scores import Evidence, Scores, Terms

Json = dict[str, Any]
AS_GOOD = "as good"
"""The verdict on an artifact that is shown to lose no more than is allowed."""


def summarise(found: Scores, it: Evidence, by: Terms) -> Json:
    """The summary; `own` and `divergence` are there only where there are such metrics, or divergences."""
    best = recommended(found, it, by.reference)
    summary: Json = {
        "metrics": {name: _figures(name, found, it, by.reference) for name in found.measurements},
        "detail": {name: measurement.detail for name, measurement in found.measurements.items()},
        "comparisons": [
            *(_with_loss(comparison, found.losses.get(a)) for a, comparison in found.comparisons.items()),
            *map(_told_by_metric, found.by_call),
        ],
        "failures": [asdict(failure) for failure in found.failures],
        "recommendation": asdict(best) if best else None,
        "sizes": dict(it.sizes),
        "notes": found.notes,
        "learnt": found.learnt,
    }
    summary |= {"own": dict(by.own)} if by.own else {}
    return summary | ({"divergence": _divergence(it)} if it.divergence else {})


def recommended(found: Scores, it: Evidence, reference: str) -> Recommendation | None:
    """The file to ship; what nothing was taught is not shipped, in whatever file."""
    refused = {failure.artifact for failure in found.failures}
    if reference in refused:
        return None
    candidates = []
    for name, loss in found.losses.items():
        if name in it.sizes:
            nats = divergence.figures(it.divergence.get(name, ())).get(DIVERGENCE)
            candidates.append(Candidate(name, it.sizes[name], loss, nats.value if nats else None))
    return recommend(found.comparisons, candidates, refused)


def _figures(name: str, found: Scores, it: Evidence, reference: str) -> Json:
    figures = {**found.measurements[name].metrics}
    if agrees := found.agreements.get(name):
        figures[f"agreement_with_{reference}"] = agrees
    figures |= divergence.figures(it.divergence.get(name, ()))
    return {"n": found.measurements[name].n, **{metric: figure.to_json() for metric, figure in figures.items()}}


def _with_loss(comparison: Comparison, loss: Loss | None) -> Json:
    """A comparison, with what may be lost where that is limited."""
    plain = comparison.to_json()
    if loss is None:
        return plain
    plain["loss"] = asdict(loss) | {"shown": loss.shown}
    if comparison.verdict != "cannot tell":
        return plain
    verdict = AS_GOOD if loss.shown else comparison.verdict
    return plain | {"verdict": verdict, "sentence": _loss_sentence(comparison, loss)}


def _loss_sentence(it: Comparison, loss: Loss) -> str:
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


def _told_by_metric(comparison: Comparison) -> Json:
    return comparison.to_json() | {"sentence": f"{METRICS[comparison.metric].title}: {comparison.sentence}"}


def _divergence(it: Evidence) -> Json:
    """What each artifact is held against, the rows where it diverges most, and which are nearer than others."""
    return {
        "from": dict(it.held_against),
        "worst": {name: divergence.worst(of) for name, of in it.divergence.items()},
        "ranked_by": divergence.ranked_by(it.divergence),
        "ranking": divergence.ranking(it.divergence),
    }
