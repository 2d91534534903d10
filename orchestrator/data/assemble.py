"""The rows that a spec's `data:` section means: read, held out, sampled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from orchestrator.data.checks import Finding, check_data, require_clean
from orchestrator.data.checks.tokens import TokenCounter
from orchestrator.data.conversation import Conversation, Kind
from orchestrator.data.hub import local_files
from orchestrator.data.reading import Loaded, RowProblem, collect, read, require
from orchestrator.spec.defaults import DEFAULTS
from orchestrator.spec.sections import Spec

Rows = Sequence[Conversation]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What decides the rows; file names are relative to the project."""

    project: Path
    train: Sequence[str]
    eval: Sequence[str]
    eval_fraction: float | None
    kind: Kind
    columns: Mapping[str, str] | None
    system: str
    max_samples: int | None
    seed: int
    weights: Sequence[float] | None = None
    accept: Sequence[str] = ()
    labels: bool | None = None
    """Whether the answers are labels; None lets the answers say it."""

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Wanted:
        """From the prepare stage's configuration."""
        return cls(
            project=Path(values["project"]),
            train=_names(values["train"]),
            eval=_names(values["eval"]),
            eval_fraction=values["eval_fraction"],
            kind=values["kind"],
            columns=values["columns"],
            system=values["system"] or "",
            max_samples=values["max_samples"],
            seed=values["seed"],
            weights=values["weights"],
            accept=values["accept"],
            labels=values["task"] == "classification" if values.get("task") else None,
        )

    @classmethod
    def of_spec(cls, spec: Spec, project: Path) -> Wanted:
        """What a spec asks for, before a run turns it into a configuration."""
        kind = {**DEFAULTS, **spec.train}["stage"]
        values = {"project": project, "kind": kind, "task": spec.evaluate.task}
        return cls.from_config({**values, **spec.data.model_dump(mode="json")})

    @classmethod
    def of_files(cls, train: Path, held_out: Path | None) -> Wanted:
        """Two files as they are, without a spec."""
        evaluated = (str(held_out),) if held_out else ()
        return cls(Path(), (str(train),), evaluated, None, "sft", None, "", None, 42)


@dataclass(frozen=True, slots=True)
class Sets:
    """Training rows, held-out rows, how many rows were read to get them, and what the checks found."""

    train: Rows
    eval: Rows
    read: int
    findings: Sequence[Finding]


def assemble(wanted: Wanted) -> Sets:
    """Read every file, hold rows out, mix, sample, check.

    Raises InputError that names each row which cannot be used, and for errors in the data that are not accepted.
    """
    learnt, asked = _load(wanted, wanted.train), _load(wanted, wanted.eval)
    train: Rows = require(learnt, accept=wanted.accept)
    if wanted.eval:
        held_out: Rows = require(asked, at_least=1, accept=wanted.accept)
    else:
        train, held_out = _hold_out(train, wanted)
    train = _sample(_mix(train, wanted), wanted)
    findings = check_data(chain(train, learnt.problems), chain(held_out, asked.problems), labels_task=wanted.labels)
    require_clean(findings, wanted.accept)
    return Sets(train, held_out, learnt.rows + asked.rows, findings)


def check(
    wanted: Wanted, tokens: TokenCounter | None = None, progress: Callable[[int], None] | None = None
) -> list[Finding]:
    """Returns what the checks find in the files as they stand, read as a stream: nothing is held out or sampled."""
    return check_data(
        _stream(wanted, wanted.train),
        _stream(wanted, wanted.eval),
        labels_task=wanted.labels,
        tokens=tokens,
        progress=progress,
    )


def _stream(wanted: Wanted, names: Sequence[str]) -> Iterator[Conversation | RowProblem]:
    for name in names:
        for path in local_files(name, wanted.project):
            yield from read(path, wanted.kind, wanted.columns, wanted.system, name=name)


def _load(wanted: Wanted, names: Sequence[str]) -> Loaded:
    return collect(_stream(wanted, names), names)


def _hold_out(rows: Rows, wanted: Wanted) -> tuple[Rows, Rows]:
    from orchestrator.data.split import split

    return split(rows, wanted.eval_fraction or 0.2, seed=wanted.seed)


def _mix(rows: Rows, wanted: Wanted) -> Rows:
    """The largest mixture of the files that has the wanted shares without repeating a row."""
    if not wanted.weights:
        return rows
    parts = [[row for row in rows if row.source == name] for name in wanted.train]
    total = min(len(part) / weight for part, weight in zip(parts, wanted.weights, strict=True))
    picker = random.Random(wanted.seed)
    chosen = [picker.sample(part, round(total * weight)) for part, weight in zip(parts, wanted.weights, strict=True)]
    return [row for part in chosen for row in part]


def _sample(rows: Rows, wanted: Wanted) -> Rows:
    if wanted.max_samples is None or wanted.max_samples >= len(rows):
        return rows
    chosen = sorted(random.Random(wanted.seed).sample(range(len(rows)), wanted.max_samples))
    return [rows[index] for index in chosen]


def _names(value: str | Sequence[str] | None) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value or ()
