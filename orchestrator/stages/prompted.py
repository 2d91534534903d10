"""prompted: the held-out rows with the labels in their system text, so that the untouched model knows what is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.labels import known_labels

ARTIFACT = "base-prompted"
ROOM = 2048
"""Bytes of what is added to a system text, and so at most as many tokens: none has fewer bytes than one."""
CHINESE = "[一-鿿]"

Json = dict[str, Any]


@dataclass(frozen=True)
class Prompted(Stage):
    """The rows as LLaMA-Factory reads them, and the text that was added to each."""

    program = "prompted"
    phase = "evaluate"
    optional = ("labels",)
    shots: int
    labels: list[str] | None = None

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where the prompted base model is asked."""
        if not is_asked(context):
            return []
        evaluate = context.spec.evaluate
        stage = cls(evaluate.shots, list(evaluate.labels) if evaluate.labels else None)
        info = f"{layout.PROMPTED}/dataset_info.json"
        return [
            stage.step(
                "prompted",
                files={info: context.render("dataset_info.json.j2", kind="sft", kinds=TRAINING_KINDS)},
                expects=(layout.PROMPTED_ROWS, layout.TOLD, info),
                needs=("prepare",),
                single_flight=True,
            )
        ]

    def run(self) -> None:
        """Write both."""
        train, held_out = read_json(Path(layout.TRAIN_ROWS)), read_json(Path(layout.EVAL_ROWS))
        counts = Counter(map(_answer, train))
        labels = sorted(known_labels(self.labels, list(map(_answer, held_out))), key=lambda label: -counts[label])
        told = system_text(labels, _shots(train, self.shots))
        write_text(Path(layout.TOLD), told)
        rows = [{**row, "system": "\n\n".join(filter(None, (row.get("system"), told)))} for row in held_out]
        write_json(Path(layout.PROMPTED_ROWS), rows)


def is_asked(context: Context) -> bool:
    """Whether the untouched model also answers with the labels before it: a classification's does."""
    return context.kind.answers and context.training["stage"] == "sft" and context.spec.evaluate.asks(ARTIFACT)


def system_text(labels: Sequence[str], shots: Sequence[tuple[str, str]]) -> str:
    """What the model is told, in the language of the rows; what finds no room is left out, the last first.

    `labels` come with the most frequent one first, `shots` are questions with their labels.
    """
    chinese = any(re.search(CHINESE, text) for text in (*labels, *(question for question, _ in shots)))
    ask, between, examples = (
        ("请只回答下列标签之一，不要回答别的内容：", "、", "例子：")
        if chinese
        else ("Answer with one of these labels and nothing else: ", ", ", "Examples:")
    )
    kept = list(_fitting(labels, ROOM - len((ask + examples).encode()), len(between.encode())))
    text = ask + between.join(kept)
    lines = [f"{question}\n→ {label}" for question, label in shots]
    given = list(_fitting(lines, ROOM - len((text + examples).encode()), 2))
    return "\n\n".join([text, f"{examples}\n{given[0]}", *given[1:]] if given else [text])


def _fitting(texts: Sequence[str], room: int, between: int) -> Iterator[str]:
    for text in texts:
        room -= len(text.encode()) + between
        if room < 0:
            return
        yield text


def _shots(rows: Sequence[Mapping[str, Any]], count: int) -> list[tuple[str, str]]:
    """The first training row of each label, then the second of each, until there are `count`."""
    seen: Counter[str] = Counter()
    numbered = []
    for place, row in enumerate(rows):
        numbered.append((seen[_answer(row)], place))
        seen[_answer(row)] += 1
    return [(_question(rows[place]), _answer(rows[place])) for _, place in sorted(numbered)[:count]]


def _question(row: Mapping[str, Any]) -> str:
    return str(row["conversations"][-2]["value"]).strip()


def _answer(row: Mapping[str, Any]) -> str:
    from orchestrator.evaluation.rows import strip_thinking

    return strip_thinking(str(row["conversations"][-1]["value"]))
