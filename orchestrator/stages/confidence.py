"""confidence: how sure a classifier's GGUFs are of each answer, from their own logits, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_json
from orchestrator.lib.step import Step
from orchestrator.stages.asked import Answered, Likelihoods, files_of, identity, kinds_asked, prompt_text
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.labels import MOST_LABELS, choices_of, known_labels

if TYPE_CHECKING:
    from orchestrator.evaluation.intervals import Array
    from orchestrator.evaluation.rows import Row


@dataclass(frozen=True)
class Confidence(Stage):
    """The probability of each known label for each held-out row, and calibration before and after scaling."""

    program = "confidence"
    phase = "verify"
    artifacts: Mapping[str, Sequence[str]]
    """Artifact → its GGUF, and the adapter over it where there is one."""
    labels: list[str] | None
    max_new_tokens: int

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step for all GGUFs of a classification; none for a model that thinks before it names a label."""
        kinds, spec = kinds_asked(context), context.spec
        wanted = spec.evaluate.task == "classification" and spec.evaluate.confidence and not spec.model.thinking
        if not kinds or not wanted or context.training["stage"] != "sft":
            return []
        artifacts = {f"gguf-{kind}": [file for file in files_of(context, kind) if file] for kind in kinds}
        labels = list(spec.evaluate.labels) if spec.evaluate.labels else None
        return [
            cls(artifacts, labels, spec.evaluate.max_new_tokens).step(
                "confidence",
                expects=(layout.summary("confidence"),),
                leaves=tuple(map(layout.confidence, artifacts)),
                needs=("prepare", *(f"ask-{kind}" for kind in kinds)),
                after=("judge",),  # which takes a moment: nothing is left beside it then, and it gets all cores
                inputs=context.picked("llama-cpp-python"),
                keeps=tuple(map(layout.likelihoods, artifacts)),
            )
        ]

    def run(self) -> None:
        """Write the rows of each artifact, the least certain first, and a summary of all."""
        from orchestrator.evaluation.rows import read_objects, write_records

        prompts = read_objects(Path(layout.PROMPTS))
        labels = self.known_labels(prompts)
        found = {}
        for artifact in self.artifacts if labels else ():
            print(f"{artifact}: {len(prompts)} rows, {len(labels)} labels", flush=True)
            rows, calibration = self._one(artifact, prompts, labels)
            write_records(Path(layout.confidence(artifact)), rows)
            found[artifact] = calibration
        figures = ("ece", "scaled_ece", "answerable")
        metrics = {artifact: {name: one[name] for name in figures} for artifact, one in found.items()}
        write_json(Path(layout.summary("confidence")), {"metrics": metrics, "confidence": found})

    def known_labels(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Those that the held-out rows may have; none where they are too few or too many for a classification."""
        labels = known_labels(self.labels, [row["label"] for row in rows])
        return labels if 2 <= len(labels) <= MOST_LABELS else []

    def _one(
        self, artifact: str, prompts: Sequence[dict[str, Any]], labels: Sequence[str]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        import numpy as np

        from orchestrator.evaluation.confidence import calibrate
        from orchestrator.evaluation.rows import read_rows

        answers = {row.id: row for row in read_rows(Path(layout.predictions(artifact)))}
        rows = [answers[row["id"]] for row in prompts]
        choices, likelihoods = self._likelihoods(artifact, prompts, labels)
        places = {label: place for place, label in enumerate(labels)}
        truth = np.array([places.get(row.truth, -1) for row in rows])
        found = calibrate(likelihoods, truth)
        told = {"choices": dict(zip(labels, choices, strict=True))}
        return by_doubt(rows, labels, likelihoods, found.temperature), found.to_json() | told

    def _likelihoods(
        self, artifact: str, prompts: Sequence[dict[str, Any]], labels: Sequence[str]
    ) -> tuple[list[list[int]], Array]:
        """Each label's tokens, and each row's log-likelihoods of the labels. What was read while the GGUF was asked is
        not read again."""
        import numpy as np

        from orchestrator.models.gguf import GgufModel

        files, stop_words = self.artifacts[artifact], read_json(Path(layout.SERVING))["stop"]
        itself = identity(files, stop_words)
        with GgufModel(Path(files[0]), vocabulary_only=True) as model:
            texts = [prompt_text(model, row["messages"], row.get("tools", ())) for row in prompts]
            asked = [model.tokenize(text) for text in texts]
            before = Answered(artifact, itself)
            answers = [before.of(ids, self.max_new_tokens) or [] for ids in asked]
            choices = choices_of(model, labels, texts[0], answers, stop_words)
        kept = Likelihoods(artifact, itself, choices)
        found = {number: known for number, ids in enumerate(asked) if (known := kept.of(ids))}
        missing = [number for number in range(len(asked)) if number not in found]
        read = self._read(artifact, [asked[number] for number in missing], choices) if missing else iter(())
        for number, of in zip(missing, read, strict=True):
            kept.keep(asked[number], of)
            found[number] = of
        return choices, np.array([found[number] for number in range(len(asked))])

    def _read(self, artifact: str, prompts: Sequence[list[int]], choices: Sequence[list[int]]) -> Iterator[list[float]]:
        from orchestrator.models.choices import log_likelihoods
        from orchestrator.models.gguf import GgufModel

        files = list(map(Path, self.artifacts[artifact]))
        with GgufModel(files[0], next(iter(files[1:]), None)) as model:
            yield from log_likelihoods(model, prompts, choices)


def labels_weighed(artifact: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels that an artifact is going to be asked for in each of the held-out rows; none where it is not."""
    config = Path(layout.stage_config(Confidence.program))
    stage = Confidence(**read_json(config)) if config.is_file() else None
    return stage.known_labels(rows) if stage and artifact in stage.artifacts else []


def by_doubt(
    rows: Sequence[Row], labels: Sequence[str], likelihoods: Array, temperature: float
) -> list[dict[str, Any]]:
    """The rows as plain JSON, the least certain first: scaled probabilities of all labels, and the most likely one."""
    from orchestrator.evaluation.confidence import probabilities

    found = []
    for row, shares in zip(rows, probabilities(likelihoods, temperature), strict=True):
        likeliest = labels[int(shares.argmax())]
        found.append(
            {
                "id": row.id,
                "prompt": row.prompt,
                "label": row.truth,
                "prediction": row.prediction,
                "confidence": round(float(shares.max()), 4),
                "likeliest": likeliest,
                "right": likeliest == row.truth,
                "probabilities": {label: round(float(p), 4) for label, p in zip(labels, shares, strict=True)},
            }
        )
    return sorted(found, key=lambda one: one["confidence"])
