"""confidence: how sure a classifier's GGUFs are of each answer, from their own logits, and what that is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_json
from orchestrator.lib.step import Step
from orchestrator.stages.asked import Answered, files_of, identity, kinds_asked, prompt_text
from orchestrator.stages.base import Context, Stage

if TYPE_CHECKING:
    from orchestrator.evaluation.intervals import Array
    from orchestrator.evaluation.rows import Row
    from orchestrator.models.gguf import GgufModel

MOST_LABELS = 50
"""A set with more is no classification that each label can be asked for in."""


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
            )
        ]

    def run(self) -> None:
        """Write the rows of each artifact, the least certain first, and a summary of all."""
        from orchestrator.evaluation.rows import read_objects, write_records

        prompts = read_objects(Path(layout.PROMPTS))
        labels = known_labels(self.labels, [row["label"] for row in prompts])
        found = {}
        for artifact in self.artifacts if 2 <= len(labels) <= MOST_LABELS else ():
            print(f"{artifact}: {len(prompts)} rows, {len(labels)} labels", flush=True)
            rows, calibration = self._one(artifact, prompts, labels)
            write_records(Path(layout.confidence(artifact)), rows)
            found[artifact] = calibration
        figures = ("ece", "scaled_ece", "answerable")
        metrics = {artifact: {name: one[name] for name in figures} for artifact, one in found.items()}
        write_json(Path(layout.summary("confidence")), {"metrics": metrics, "confidence": found})

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
        """Each label's tokens, and each row's log-likelihoods of the labels."""
        import numpy as np

        from orchestrator.models.choices import log_likelihoods
        from orchestrator.models.gguf import GgufModel

        files = self.artifacts[artifact]
        stop_words = read_json(Path(layout.SERVING))["stop"]
        gguf, adapter = Path(files[0]), next(map(Path, files[1:]), None)
        with GgufModel(gguf, adapter) as model:
            texts = [prompt_text(model, row["messages"], row.get("tools", ())) for row in prompts]
            asked = [model.tokenize(text) for text in texts]
            before = Answered(artifact, identity(files, stop_words))
            answers = [before.of(ids, self.max_new_tokens) or [] for ids in asked]
            end = sorted(model.stops(stop_words))[:1] or model.tokenize(model.eos or "")
            choices = told_apart(label_tokens(model, labels, texts[0], answers), end)
            return choices, np.array(list(log_likelihoods(model, asked, choices)))


def known_labels(named: Sequence[str] | None, asked: Sequence[str]) -> list[str]:
    """The labels that a row may have: those of the spec, of the held-out rows, and of the training rows."""
    from orchestrator.evaluation.rows import strip_thinking

    rows = read_json(Path(layout.TRAIN_ROWS))
    taught = [row["conversations"][-1]["value"] for row in rows]
    found = {strip_thinking(label) for label in (*(named or ()), *asked, *taught)}
    return sorted(found - {""})


def label_tokens(
    model: GgufModel, labels: Sequence[str], prompt: str, answers: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Each label in the tokens in which the model says it.

    Where it has answered with a label, these are known. Else they are those of the text behind a prompt, or of the text
    alone, whichever the labels that were answered show: some tokenizers tell the two apart by a space.
    """
    said: dict[str, Counter[tuple[int, ...]]] = {}
    for answer in answers:
        said.setdefault(model.detokenize(answer).strip(), Counter())[tuple(answer)] += 1
    start = model.tokenize(prompt)
    exclusive = {label: model.tokenize(label) for label in labels}
    behind = {label: _rest(start, model.tokenize(prompt + label)) or exclusive[label] for label in labels}
    as_alone = sum(said[label][tuple(exclusive[label])] for label in labels if label in said)
    as_behind = sum(said[label][tuple(behind[label])] for label in labels if label in said)
    usual = exclusive if as_alone >= as_behind else behind
    return [list(said[label].most_common(1)[0][0]) if label in said else usual[label] for label in labels]


def told_apart(choices: Sequence[list[int]], end: Sequence[int]) -> list[list[int]]:
    """The choices, with the end of the answer behind those that another one begins with.

    The others go without: how a model ends says nothing of the label, and one that goes on has named it all the same.
    """

    def begins_another(choice: list[int]) -> bool:
        return any(other != choice and other[: len(choice)] == choice for other in choices)

    return [[*choice, *end] if begins_another(choice) else choice for choice in choices]


def _rest(start: list[int], whole: list[int]) -> list[int]:
    return whole[len(start) :] if whole[: len(start)] == start else []


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
