"""Was an artifact asked the very tokens it was trained on, and did it answer like a sound model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REPEATS = 4
"""So many copies of one token, or of one pair, at the end of a cut-off answer count as repetition."""
TOO_MANY = 0.5
"""Share of repeating answers from which on an artifact counts as broken."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One held-out row: the tokens of training, the tokens it was asked with, and the answer's tokens."""

    id: str
    trained: Sequence[int] | None
    served: Sequence[int]
    same_text: bool
    """Whether the served template wrote the text of training; if so, other tokens are the tokenizer's doing."""
    answer: Sequence[int]
    cut_off: bool


def parity(rows: Sequence[Asked]) -> dict[str, Any]:
    """Counts over all rows: compared, equal prompts, repeating answers; with the first difference as an example."""
    compared = [row for row in rows if row.trained is not None]
    different = [row for row in compared if list(row.trained or ()) != list(row.served)]
    return {
        "rows": len(rows),
        "compared": len(compared),
        "equal_prompts": len(compared) - len(different),
        "repeating": sum(row.cut_off and _repeats(row.answer) for row in rows),
        "first_difference": _difference(different[0]) if different else None,
    }


def complaints(artifact: str, found: Mapping[str, Any], agreement: float) -> list[str]:
    """What the gate has to say of a parity report; each sentence names the likely cause.

    `agreement` is the percentage of rows answered as the tuned model does: where that one repeats itself too, a
    faithful copy is not at fault.
    """
    sentences = []
    if found["equal_prompts"] < found["compared"]:
        share = f"{found['compared'] - found['equal_prompts']} of {found['compared']}"
        sentences.append(
            f"{artifact}: the prompts of {share} rows differ from training; {_cause(found['first_difference'])}"
        )
    if found["repeating"] > TOO_MANY * found["rows"] and agreement < 100 * TOO_MANY:
        sentences.append(
            f"{artifact}: {found['repeating']} of {found['rows']} answers only repeat themselves; "
            "likely cause: quantisation, the file lost what the model had learnt"
        )
    return sentences


def _difference(row: Asked) -> dict[str, Any]:
    trained, served = list(row.trained or ()), list(row.served)
    pairs = zip(trained, served, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(trained), len(served)))
    return {
        "id": row.id,
        "at": at,
        "trained": trained[at : at + 8],
        "served": served[at : at + 8],
        "same_text": row.same_text,
        "doubled_first": len(served) > 1 and served[0] == served[1] and served[1:] == trained,
        "trained_length": len(trained),
        "served_length": len(served),
    }


def _cause(difference: Mapping[str, Any]) -> str:
    if difference["doubled_first"]:
        return "likely cause: template, the first token (BOS) is there twice"
    culprit = "tokenizer" if difference["same_text"] else "template"
    return f"likely cause: {culprit}, row {difference['id']} differs from token {difference['at']} on"


def _repeats(answer: Sequence[int]) -> bool:
    for width in (1, 2):
        tail = list(answer[-width * REPEATS :])
        if len(tail) == width * REPEATS and tail == tail[:width] * REPEATS:
            return True
    return False
