"""baselines: what a classification reaches without training, measured beside the tuned model's answers.

They have a summary of their own, so that what scores and gate rest on is the same whether they are asked or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import write_json
from orchestrator.lib.step import Step
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.predict import artifact_rows, generated_by
from orchestrator.stages.prompted import ARTIFACT, is_asked

if TYPE_CHECKING:
    from orchestrator.evaluation.measure import Task
    from orchestrator.evaluation.rows import Row

TASK: Task = "classification"


@dataclass(frozen=True)
class Baselines(Stage):
    """Figures of `majority` and, where it was asked, of `base-prompted`, and the tuned model against each."""

    program = "baselines"
    phase = "evaluate"
    optional = ("labels", "prompted")
    tuned: str
    """The tuned model's answers."""
    summary: str
    labels: list[str] | None = None
    prompted: Mapping[str, str] | None = None
    """What LLaMA-Factory answered for the prompted base model, and the rows it was asked."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step for a classification whose base model is asked."""
        evaluate, answers = context.spec.evaluate, context.kind.answers and context.training["stage"] == "sft"
        if not answers or evaluate.task != TASK or not evaluate.asks("base"):
            return []
        prompted = is_asked(context)
        stage = cls(
            layout.predictions("tuned"),
            layout.summary("baselines"),
            list(evaluate.labels) if evaluate.labels else None,
            generated_by(ARTIFACT) if prompted else None,
        )
        return [
            stage.step(
                "baselines",
                expects=(stage.summary, *([layout.predictions(ARTIFACT)] if prompted else ())),
                leaves=(f"evaluation/{ARTIFACT}.errors.jsonl",) if prompted else (),
                needs=("prepare", "score", *([f"predict-{ARTIFACT}"] if prompted else ())),
                inputs=context.picked("rouge-score", "sacrebleu"),
            )
        ]

    def run(self) -> None:
        """Write the summary, and the answers of the prompted base model."""
        from orchestrator.evaluation.baselines import majority_rows
        from orchestrator.evaluation.compare import Basis, compare
        from orchestrator.evaluation.measure import measure
        from orchestrator.evaluation.rows import read_rows
        from orchestrator.stages.score import taught

        tuned = read_rows(Path(self.tuned))
        label, same = majority_rows(tuned, taught() or ())
        asked = {"majority": same, **self._answered()}
        measured = {name: measure(rows, TASK, self.labels) for name, rows in asked.items()}
        against = {
            name: compare(tuned, rows, Basis(TASK, ("tuned", name), self.labels)) for name, rows in asked.items()
        }
        found: dict[str, Any] = {
            "metrics": {
                name: {"n": one.n, **{metric: figure.to_json() for metric, figure in one.metrics.items()}}
                for name, one in measured.items()
            },
            "detail": {name: measured[name].detail for name in measured if name == ARTIFACT},
            "comparisons": [one.to_json() for one in against.values()],
            "baselines": {"majority": label, **self._told()},
        }
        write_json(Path(self.summary), found)

    def _answered(self) -> dict[str, list[Row]]:
        """The prompted base model's rows, which are written down with its mistakes."""
        from orchestrator.evaluation.measure import mistakes
        from orchestrator.evaluation.rows import write_records, write_rows

        if not self.prompted:
            return {}
        rows = artifact_rows(ARTIFACT, self.prompted)
        write_rows(Path(layout.predictions(ARTIFACT)), rows)
        write_records(Path(f"evaluation/{ARTIFACT}.errors.jsonl"), mistakes(rows, TASK, self.labels))
        return {ARTIFACT: rows}

    def _told(self) -> dict[str, str]:
        """The text that the prompted base model was told."""
        return {ARTIFACT: Path(layout.TOLD).read_text(encoding="utf-8")} if self.prompted else {}
