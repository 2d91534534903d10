"""What judge says of files beyond their answers: what each may lose and how far it diverges; candidates, among which
`evaluation/recommend.py` chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.evaluation.compare import Comparison
    from orchestrator.evaluation.noninferiority import Loss
    from orchestrator.evaluation.recommend import Recommendation
    from orchestrator.evaluation.rows import Row
    from orchestrator.stages.score import Score
    from orchestrator.stages.scores import Scores

Json = dict[str, Any]


def losses(rows: Mapping[str, list[Row]], artifacts: Iterable[str], config: Score) -> dict[str, Loss]:
    """What each artifact may lose against the reference, where the gate limits that."""
    from orchestrator.evaluation.compare import Basis, paired_scores
    from orchestrator.evaluation.noninferiority import loss

    if "max_accuracy_drop" not in (config.gate or {}):
        return {}
    limit, reference = 100 * (config.gate or {})["max_accuracy_drop"], config.reference
    found = {}
    for name in artifacts:
        _, before, after = paired_scores(
            rows[name], rows[reference], Basis(config.task, (name, reference), config.labels)
        )
        found[name] = loss(after - before, limit, config.seed)
    return found


def recommended(scores: Scores, sizes: Mapping[str, int], reference: str) -> Recommendation | None:
    """The file to ship; what nothing was taught is not shipped, in whatever file."""
    from orchestrator.evaluation.divergence import figures
    from orchestrator.evaluation.metric import DIVERGENCE
    from orchestrator.evaluation.recommend import Candidate, recommend

    refused = {failure.artifact for failure in scores.failures}
    if reference in refused:
        return None
    candidates = []
    for name in scores.losses.keys() & sizes.keys():
        nats = figures(scores.divergences.get(name, ())).get(DIVERGENCE)
        candidates.append(Candidate(name, sizes[name], scores.losses[name], nats.value if nats else None))
    return recommend(scores.comparisons, candidates, refused)


def compared(comparison: Comparison, loss: Loss | None) -> Json:
    """A comparison as plain JSON, with what may be lost where that is limited."""
    from orchestrator.evaluation.recommend import AS_GOOD, loss_sentence

    plain = comparison.to_json()
    if loss is None:
        return plain
    plain["loss"] = asdict(loss) | {"shown": loss.shown}
    if comparison.verdict != "cannot tell":
        return plain
    verdict = AS_GOOD if loss.shown else comparison.verdict
    return plain | {"verdict": verdict, "sentence": loss_sentence(comparison, loss)}


def diverged(rows: Mapping[str, Sequence[Json]], held_against: Mapping[str, str]) -> Json:
    """What each artifact is held against, the rows where it diverges most, and which are nearer than others."""
    from orchestrator.evaluation.divergence import ranked_by, ranking, worst

    return {
        "from": dict(held_against),
        "worst": {name: worst(of) for name, of in rows.items()},
        "ranked_by": ranked_by(rows),
        "ranking": ranking(rows),
    }
