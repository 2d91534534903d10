"""The fixes that nobody would argue with, into new files: never in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.data.checks.copies import exact_between, exact_groups, near_between
from orchestrator.data.checks.corpus import Corpus, build
from orchestrator.data.checks.labels import are_labels, label_variants
from orchestrator.data.checks.text import without_control_characters
from orchestrator.data.conversation import Conversation, Kind, Message, write_rows
from orchestrator.data.reading import RowProblem, load
from orchestrator.lib.errors import InputError
from orchestrator.lib.words import counted


@dataclass(frozen=True)
class Change:
    """One row that was changed or left out, and why (`stripped`, `label`, `duplicate`, `leaked`)."""

    kind: str
    row: Conversation
    detail: str

    def __str__(self) -> str:
        return f"{self.row.source}:{self.row.row} {self.kind}: {self.detail}"


@dataclass(frozen=True)
class Cleaned:
    """The rows after cleaning and everything that was done to them."""

    train: list[Conversation]
    held_out: list[Conversation]
    changes: list[Change]
    unusable: tuple[RowProblem, ...] = ()

    def lines(self, limit: int) -> list[str]:
        """The changes for people: how many of each kind, and the first of them."""
        lines = [f"unusable: {counted(len(self.unusable), 'row')} left out"] if self.unusable else []
        lines += [f"  {problem}" for problem in self.unusable[:limit]]
        for kind, count in Counter(change.kind for change in self.changes).items():
            some = [f"  {change}" for change in self.changes if change.kind == kind][:limit]
            lines += [f"{kind}: {counted(count, 'row')}", *some, *(["  …"] if count > limit else [])]
        return lines or ["nothing to clean"]

    def to_json(self) -> dict[str, Any]:
        """Everything that was done, for scripts."""
        left_out = [("unusable", p.source, p.row, p.message) for p in self.unusable]
        done = [(change.kind, change.row.source, change.row.row, change.detail) for change in self.changes]
        changes = [dict(zip(("kind", "file", "row", "detail"), change, strict=True)) for change in left_out + done]
        return {"train": len(self.train), "eval": len(self.held_out), "changes": changes}


def clean_files(train: Path, held_out: Path | None, folder: Path, kind: Kind = "sft") -> Cleaned:
    """Writes cleaned train.json and eval.json into a folder and returns what was done.

    Raises InputError if the folder would overwrite a file that is being cleaned.
    """
    targets = [folder / "train.json", folder / "eval.json"]
    if {path.resolve() for path in targets} & {path.resolve() for path in (train, held_out) if path}:
        raise InputError(f"{folder} holds the files to be cleaned", "give another --out: nothing is changed in place")
    learnt, asked = load(train, kind), load([held_out] if held_out else [], kind)
    done = clean(learnt.conversations, asked.conversations)
    for path, rows in zip(targets, (done.train, done.held_out), strict=True):
        if rows:
            write_rows(path, rows, kind)
    return replace(done, unusable=learnt.problems + asked.problems)


def clean(train: Sequence[Conversation], held_out: Sequence[Conversation] = ()) -> Cleaned:
    """Returns the sets stripped, with one spelling a label, without repeated rows, and train without leaked rows.

    Contradictory labels stay: which one is right, only a person knows. So do near copies within a set.
    """
    changes: list[Change] = []
    sets = [[_tidied(row, changes) for row in rows] for rows in (train, held_out)]
    learnt, asked = build(sets[0]), build(sets[1])
    if are_labels(learnt.labels):
        spellings = label_variants(learnt.labels + asked.labels)
        sets = [[_relabelled(row, spellings, changes) for row in rows] for rows in sets]
        learnt, asked = build(sets[0]), build(sets[1])
    repeated = [_repeated(corpus) for corpus in (learnt, asked)]
    exact = {i: j for j, rows in exact_between(learnt, asked).items() for i in rows}
    leaked = {i: j for i, j in sorted((dict(near_between(learnt, asked)) | exact).items()) if i not in repeated[0]}
    changes += [Change("leaked", sets[0][i], f"held out as {asked.show(j)}") for i, j in leaked.items()]
    for rows, gone in zip(sets, repeated, strict=True):
        changes += [Change("duplicate", rows[i], f"repeats row {rows[first].row}") for i, first in gone.items()]
    return Cleaned(_without(sets[0], {*repeated[0], *leaked}), _without(sets[1], repeated[1]), changes)


def tidy(row: Conversation) -> Conversation:
    """The row with its texts stripped of outer white space and of invisible control characters."""
    messages = tuple(Message(message.role, _tidy_text(message.content)) for message in row.messages)
    system, chosen, rejected = map(_tidy_text, (row.system, row.chosen, row.rejected))
    return replace(row, messages=messages, system=system, chosen=chosen, rejected=rejected)


def _tidy_text(text: str) -> str:
    return without_control_characters(text).strip()


def _tidied(row: Conversation, changes: list[Change]) -> Conversation:
    new = tidy(row)
    if new != row:
        changes.append(Change("stripped", row, f"{row.prompt[-40:]!r} {row.answer[-40:]!r}"))
    return new


def _relabelled(row: Conversation, spellings: dict[str, str], changes: list[Change]) -> Conversation:
    label = spellings.get(row.answer)
    if label is None or label == row.rejected:  # a pair that teaches the spelling
        return row
    changes.append(Change("label", row, f"{row.answer!r} → {label!r}"))
    if row.chosen:
        return replace(row, chosen=label)
    return replace(row, messages=(*row.messages[:-1], replace(row.messages[-1], content=label)))


def _repeated(corpus: Corpus) -> dict[int, int]:
    """Rows with the question and the answer of an earlier row → that row."""
    found: dict[int, int] = {}
    for group in exact_groups(corpus):
        first: dict[int, int] = {}
        for index in group:
            if first.setdefault(corpus.answer[index], index) != index:
                found[index] = first[corpus.answer[index]]
    return found


def _without(rows: list[Conversation], gone: set[int] | dict[int, int]) -> list[Conversation]:
    return [row for index, row in enumerate(rows) if index not in gone]
