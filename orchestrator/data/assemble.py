"""The rows that a spec's `data:` section means: read, held out, sampled."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.data.conversation import Conversation, Kind
from orchestrator.data.reading import load, require


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
        )


@dataclass(frozen=True, slots=True)
class Sets:
    """Training rows, held-out rows, and how many rows were read to get them."""

    train: Sequence[Conversation]
    eval: Sequence[Conversation]
    read: int


def assemble(wanted: Wanted) -> Sets:
    """Read every file, hold rows out, sample. Raises InputError that names each row which cannot be used."""
    train = _read(wanted, wanted.train, at_least=10)
    if wanted.eval:
        held_out = _read(wanted, wanted.eval, at_least=1)
        read = len(train) + len(held_out)
    else:
        read = len(train)
        train, held_out = _hold_out(train, wanted)
    return Sets(_sample(train, wanted), held_out, read)


def _read(wanted: Wanted, names: Sequence[str], at_least: int) -> Sequence[Conversation]:
    paths = [wanted.project / name for name in names]
    return require(load(paths, wanted.kind, wanted.columns, wanted.system), at_least)


def _hold_out(rows: Sequence[Conversation], wanted: Wanted) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    from orchestrator.data.split import split

    return split(rows, wanted.eval_fraction or 0.2, seed=wanted.seed)


def _sample(rows: Sequence[Conversation], wanted: Wanted) -> Sequence[Conversation]:
    if wanted.max_samples is None or wanted.max_samples >= len(rows):
        return rows
    chosen = sorted(random.Random(wanted.seed).sample(range(len(rows)), wanted.max_samples))
    return [rows[index] for index in chosen]


def _names(value: str | Sequence[str] | None) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value or ()
