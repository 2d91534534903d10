"""Was an artifact asked the very tokens it was trained on, and did it answer like a sound model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.lib.sequences import first_difference

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


def same_texts(rows: Sequence[Mapping[str, Any]], texts: Sequence[str], bos: str) -> dict[str, Any]:
    """How many prompts another engine wrote as training did, BOS at the start aside; `rows` have `id` and `text`."""
    pairs = [(row, row["text"].removeprefix(bos), text) for row, text in zip(rows, texts, strict=True)]
    different = [pair for pair in pairs if pair[1] != pair[2]]
    return {
        "rows": len(pairs),
        "equal_texts": len(pairs) - len(different),
        "first_difference": _text_difference(*different[0]) if different else None,
    }


def _text_difference(row: Mapping[str, Any], trained: str, served: str) -> dict[str, Any]:
    at = first_difference(trained, served)
    return {"id": row["id"], "character": at + 1, "trained": trained[at : at + 24], "served": served[at : at + 24]}


def server_sentence(artifact: str, found: Mapping[str, Any]) -> str | None:
    """How the prompts of llama.cpp's own server differ from training's; None where they do not, or it was not asked."""
    served = found.get("llama_server")
    if not served or served["equal_texts"] == served["rows"]:
        return None
    first, different = served["first_difference"], served["rows"] - served["equal_texts"]
    return (
        f"{artifact}: llama.cpp's own server writes {different} of {served['rows']} prompts "
        f"differently from training; row {first['id']}, character {first['character']}: {first['served']!r}, "
        f"in training {first['trained']!r}"
    )


def all_equal(found: Mapping[str, Any]) -> bool:
    """Whether the prompts of all rows were compared with training's and were the same."""
    return bool(found["rows"]) and found["rows"] == found["compared"] == found["equal_prompts"]


def uncompared(found: Mapping[str, Any]) -> int:
    """How many rows were asked without it being known what training would have asked."""
    return int(found["rows"] - found["compared"])


def uncompared_sentence(artifact: str, found: Mapping[str, Any]) -> str:
    """What a parity report did not look at, in words."""
    return (
        f"{artifact}: the prompts of {uncompared(found)} of {found['rows']} rows were not compared with training's "
        "(conversations with tools are not), so nothing is proven of them"
    )


def difference_sentence(artifact: str, found: Mapping[str, Any]) -> str | None:
    """How the prompts differ from those of training, with the likely cause; None where none was seen to."""
    different = found["compared"] - found["equal_prompts"]
    if not different:
        return None
    of = f"{found['compared']} rows" if not uncompared(found) else f"{found['compared']} compared rows"
    return f"{artifact}: the prompts of {different} of {of} differ from training; {_cause(found['first_difference'])}"


def repeats_itself(found: Mapping[str, Any], agreement: float) -> bool:
    """Whether an artifact only repeats itself and so is broken.

    `agreement` is the percentage of rows answered as the tuned model does: where that one repeats itself too, a
    faithful copy is not at fault.
    """
    return bool(found["repeating"] > TOO_MANY * found["rows"] and agreement < 100 * TOO_MANY)


def _difference(row: Asked) -> dict[str, Any]:
    trained, served = list(row.trained or ()), list(row.served)
    at = first_difference(trained, served)
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
