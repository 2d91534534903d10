"""Data files → Conversations, with every row that cannot be one named by file and row."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from orchestrator.data.columns import Format, detect_format
from orchestrator.data.conversation import Conversation, Kind
from orchestrator.data.formats import to_conversation
from orchestrator.data.rows import RowError, read_rows
from orchestrator.lib.errors import InputError, some
from orchestrator.lib.words import counted

MIN_TRAINING_ROWS = 10
LOOK_AT = 50  # rows that decide the format


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why one row must not reach training. `kind` is a stable word; rows count from 1."""

    kind: str
    source: str
    row: int
    message: str

    def __str__(self) -> str:
        return f"{self.source}, row {self.row}: {self.message} ({self.kind})"


@dataclass(frozen=True)
class Loaded:
    """Everything some files held: rows in = len(conversations) + len(problems)."""

    sources: tuple[str, ...]
    conversations: tuple[Conversation, ...]
    problems: tuple[RowProblem, ...]

    @property
    def rows(self) -> int:
        return len(self.conversations) + len(self.problems)


def read(
    path: Path | str,
    kind: Kind = "sft",
    columns: Mapping[str, str] | None = None,
    system: str = "",
    *,
    name: str = "",
    react: bool = False,
) -> Iterator[Conversation | RowProblem]:
    """Yields each row of a file as a Conversation, or as a RowProblem; memory stays constant.

    The rows' source is `name`, or else the path; `react` turns the actions of ReAct texts into calls.
    Raises InputError when the file is missing, unreadable, or has no prompt or answer column.
    """
    rows, source = read_rows(Path(path)), name or str(path)
    head = list(itertools.islice(rows, LOOK_AT))
    samples = [value for _, value in head if not isinstance(value, RowError)]
    form = replace(_format(source, samples, kind, columns, system), react=react)
    for number, value in itertools.chain(head, rows):
        try:
            if isinstance(value, RowError):
                raise value
            yield to_conversation(value, form, source, number)
        except RowError as error:
            yield RowProblem(error.kind, source, number, error.message)


def _format(
    path: str, samples: list[dict[str, Any]], kind: Kind, columns: Mapping[str, str] | None, system: str
) -> Format:
    if not samples:  # nothing to look at, and nothing to translate unless all of the first rows are damaged
        return Format({"messages": "conversations"}, kind, system)
    try:
        return detect_format(samples, kind, columns, system)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from None


def load(
    paths: str | Path | Sequence[str | Path],
    kind: Kind = "sft",
    columns: Mapping[str, str] | None = None,
    system: str = "",
    *,
    react: bool = False,
) -> Loaded:
    """Returns all rows of one or several files, the good and the bad. Raises InputError as `read` does."""
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    items = itertools.chain.from_iterable(read(path, kind, columns, system, react=react) for path in files)
    return collect(items, tuple(map(str, files)))


def collect(items: Iterable[Conversation | RowProblem], sources: Sequence[str] = ()) -> Loaded:
    """Returns what a stream of rows held."""
    good: list[Conversation] = []
    bad: list[RowProblem] = []
    for item in items:
        if isinstance(item, RowProblem):
            bad.append(item)
        else:
            good.append(item)
    return Loaded(tuple(sources), tuple(good), tuple(bad))


def require(
    loaded: Loaded, at_least: int = MIN_TRAINING_ROWS, accept: Collection[str] = ()
) -> tuple[Conversation, ...]:
    """Returns the conversations if there are enough, and every bad row is of a kind that is accepted as left out.

    Raises one InputError otherwise.
    """
    if refused := [problem for problem in loaded.problems if problem.kind not in accept]:
        kinds = ", ".join(dict.fromkeys(problem.kind for problem in refused))
        hint = f"correct these rows, or leave them out with `data: {{accept: [{kinds}]}}` or `orchestrator data clean`"
        shown = indent(some(list(map(str, refused))), "  ")
        raise InputError(f"{len(refused)} of {counted(loaded.rows, 'row')} cannot be used:\n{shown}", hint)
    if len(loaded.conversations) < at_least:
        message = (
            f"{' + '.join(loaded.sources)}: {counted(len(loaded.conversations), 'row')}, at least {at_least} are needed"
        )
        raise InputError(message, "a few hundred rows are a good start; is it the right file?")
    return loaded.conversations
