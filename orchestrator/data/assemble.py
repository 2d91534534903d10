"""The rows that a spec's `data:` section means: read, held out, sampled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from orchestrator.data.checks import Finding, Mode, check_data, require_clean
from orchestrator.data.checks.copies import exact_between, near_between
from orchestrator.data.checks.corpus import build
from orchestrator.data.checks.finding import finding
from orchestrator.data.checks.tokens import TokenCounter
from orchestrator.data.conversation import Conversation, Kind
from orchestrator.data.hub import local_files
from orchestrator.data.reading import RowProblem, collect, read, require
from orchestrator.data.split import split
from orchestrator.lib.errors import InputError
from orchestrator.spec.sections import AUTO, Data, Spec

Rows = Sequence[Conversation]
VALIDATION_SHARE = 0.1
MOST_VALIDATION = 200
"""Rows that `data.validation: auto` takes at most: more would cost training rows and minutes, and tell little more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What decides the rows; file names are relative to the project."""

    project: Path
    data: Data
    kind: Kind = "sft"
    labels: bool | None = None
    """Whether the answers are labels; None lets the answers say it."""
    mode: Mode | None = None
    """How they will be trained, where that is known."""
    every_answer: bool = False
    """Whether a held-out conversation is asked for each of its answers."""

    @classmethod
    def of_spec(cls, spec: Spec, project: Path) -> Wanted:
        """What a spec asks for, before a run turns it into a configuration."""
        kind = spec.training["stage"]
        return cls(project, spec.data, kind, spec.evaluate.task == "classification")

    @classmethod
    def of_files(cls, train: Path, held_out: Path | None) -> Wanted:
        """Two files as they are, without a spec."""
        return cls(Path(), Data(train=str(train), eval=str(held_out) if held_out else None))


@dataclass(frozen=True, slots=True)
class Sets:
    """Training rows, held-out rows, how many rows were read to get them, and what the checks found."""

    train: Rows
    eval: Rows
    read: int
    findings: Sequence[Finding]
    validation: Rows = ()
    """Rows to choose a checkpoint by, neither trained on nor held out."""


def assemble(wanted: Wanted) -> Sets:
    """Read every file, hold rows out, mix, sample, check.

    Raises InputError that names each row which cannot be used, and for errors in the data that are not accepted.
    """
    data = wanted.data
    learnt, asked = (collect(_stream(wanted, names), _names(names)) for names in (data.train, data.eval))
    train: Rows = require(learnt, accept=data.accept)
    if data.eval:
        held_out: Rows = require(asked, at_least=1, accept=data.accept)
    else:
        train, held_out = split(train, data.eval_fraction or 0.2, seed=data.seed)
    train = _sample(_mix(train, data), data)
    findings = check_data(
        chain(train, learnt.problems), chain(held_out, asked.problems), labels_task=wanted.labels, mode=wanted.mode
    )
    require_clean(findings, data.accept)
    train, validation, overlap = _validation(wanted, train, held_out)
    if wanted.every_answer and wanted.kind == "sft":
        held_out = [part for row in held_out for part in row.each_answer()]
    return Sets(train, held_out, learnt.rows + asked.rows, [*findings, *overlap], validation)


def _validation(wanted: Wanted, train: Rows, held_out: Rows) -> tuple[Rows, Rows, list[Finding]]:
    """The training rows that stay, those to choose a checkpoint by, and what is said of rows that cannot be such.

    Raises InputError where a file has no row of its own.
    """
    chosen, seed = wanted.data.validation, wanted.data.seed
    if chosen is None:
        return train, [], []
    if chosen == AUTO:
        chosen = min(VALIDATION_SHARE, MOST_VALIDATION / len(train))
    if not isinstance(chosen, str):
        return *split(train, chosen, seed=seed), []
    rows = require(collect(_stream(wanted, chosen), [chosen]), at_least=1, accept=wanted.data.accept)
    kept, overlap = apart(rows, train, held_out)
    if not kept:
        raise InputError(
            f"data.validation: all {len(rows)} rows of {chosen!r} are training or held-out rows too",
            "Name a file of other rows, or say data.validation: auto, which takes some of the training rows.",
        )
    return train, kept, overlap


def apart(rows: Rows, train: Rows, held_out: Rows) -> tuple[Rows, list[Finding]]:
    """The rows that are neither trained on nor held out, not even nearly, and a finding for the others.

    A checkpoint that was chosen by held-out rows would be measured by the same luck again, and training rows are known
    by heart the better the longer it trains.
    """
    corpus, others = build(rows), build([*train, *held_out])
    known = set(exact_between(others, corpus)) | {at for _, at in near_between(others, corpus)}
    if not known:
        return rows, []
    message = f"{len(known)} of {len(rows)} validation rows are training or held-out rows too, and are left out"
    left = finding("validation_overlap", "warning", message, corpus.places(sorted(known)))
    return [row for at, row in enumerate(rows) if at not in known], [left]


def check(
    wanted: Wanted, tokens: TokenCounter | None = None, progress: Callable[[int], None] | None = None
) -> list[Finding]:
    """Returns what the checks find in the files as they stand, read as a stream: nothing is held out or sampled."""
    train, held_out = (_stream(wanted, names) for names in (wanted.data.train, wanted.data.eval))
    return check_data(train, held_out, labels_task=wanted.labels, tokens=tokens, mode=wanted.mode, progress=progress)


def _stream(wanted: Wanted, names: str | Sequence[str] | None) -> Iterator[Conversation | RowProblem]:
    columns, system = wanted.data.columns, wanted.data.system or ""
    for name in _names(names):
        for path in local_files(name, wanted.project):
            yield from read(path, wanted.kind, columns, system, name=name)


def _mix(rows: Rows, data: Data) -> Rows:
    """The largest mixture of the files that has the wanted shares without repeating a row."""
    if not data.weights:
        return rows
    parts = [[row for row in rows if row.source == name] for name in _names(data.train)]
    total = min(len(part) / weight for part, weight in zip(parts, data.weights, strict=True))
    picker = random.Random(data.seed)
    chosen = [picker.sample(part, round(total * weight)) for part, weight in zip(parts, data.weights, strict=True)]
    return [row for part in chosen for row in part]


def _sample(rows: Rows, data: Data) -> Rows:
    if data.max_samples is None or data.max_samples >= len(rows):
        return rows
    chosen = sorted(random.Random(data.seed).sample(range(len(rows)), data.max_samples))
    return [rows[index] for index in chosen]


def _names(value: str | Sequence[str] | None) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value or ()
