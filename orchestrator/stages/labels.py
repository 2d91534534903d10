"""The labels that a classifier may name, and the tokens in which a model says each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.lib import layout
from orchestrator.lib.files import read_json

if TYPE_CHECKING:
    from orchestrator.models.gguf import GgufModel

MOST_LABELS = 50
"""A set with more is no classification that each label can be asked for in."""


def known_labels(named: Sequence[str] | None, asked: Sequence[str]) -> list[str]:
    """The labels that a row may have: those of the spec, of the held-out rows, and of the training rows."""
    from orchestrator.evaluation.rows import strip_thinking

    rows = read_json(Path(layout.TRAIN_ROWS))
    taught = [row["conversations"][-1]["value"] for row in rows]
    found = {strip_thinking(label) for label in (*(named or ()), *asked, *taught)}
    return sorted(found - {""})


def choices_of(
    model: GgufModel, labels: Sequence[str], prompt: str, answers: Sequence[Sequence[int]], stop_words: Sequence[str]
) -> list[list[int]]:
    """The tokens of each label that tell it apart from the others, behind such a prompt and as in such answers."""
    end = sorted(model.stops(stop_words))[:1] or model.tokenize(model.eos or "")
    return told_apart(label_tokens(model, labels, prompt, answers), end)


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
