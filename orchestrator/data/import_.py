"""A spreadsheet, or any other file of rows, → a data set folder with train.json and eval.json."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from orchestrator.data.clean import tidy
from orchestrator.data.columns import detect_format
from orchestrator.data.conversation import Conversation, Kind, text_of_rows
from orchestrator.data.encoding import detect_encoding
from orchestrator.data.react import tools_called
from orchestrator.data.reading import LOOK_AT, Loaded, RowProblem, load
from orchestrator.data.rows import RowError, read_rows
from orchestrator.data.split import label_counts, split
from orchestrator.data.tools import calls_of
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_text

_LABEL_TOKENS, _ANSWER_TOKENS = 16, 256  # max_new_tokens to suggest
_BINARY = (".parquet", ".xlsx")


@dataclass(frozen=True)
class Recipe:
    """How a file becomes a data set.

    `columns` as in the spec (`{"prompt": "News category: {title}", "response": "category"}`); rows of equal `group`
    values stay on one side of the split.
    """

    kind: Kind = "sft"
    columns: Mapping[str, str] | None = None
    system: str = ""
    group: str | None = None
    fraction: float = 0.25
    seed: int = 42


@dataclass(frozen=True)
class Calling:
    """How many rows call tools, and the tools that none of them offered and that were made from their calls."""

    rows: int = 0
    inferred: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What an import wrote and what it left out."""

    folder: Path
    train: int
    held_out: int
    left_out: tuple[RowProblem, ...]
    labels: Counter[str]  # empty when the answers are no labels
    encoding: str  # of a text file
    calls: Calling = field(default_factory=Calling)
    kind: Kind = "sft"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role → the column, or the text with columns in it, that was taken for it."""
    first: Conversation | None = None
    """The first training row, as it will be trained."""

    def changes(self, project: Path) -> dict[str, Any]:
        """Dotted key → value: what a spec in that folder says to use the data set."""
        folder = Path(os.path.relpath(self.folder.resolve(), project.resolve())).as_posix()
        return self._keys(folder)

    def outdated(self) -> tuple[str, ...]:
        """The keys that such a spec must not have: what they say is of other files."""
        always = ("data.columns", "data.weights", "data.eval_fraction" if self.held_out else "data.eval")
        return (*always, "train.stage") if self.kind == "sft" else always

    def _keys(self, folder: str) -> dict[str, Any]:
        task, tokens = self._task()
        return {
            "data.train": f"{folder}/train.json",
            **({"data.eval": f"{folder}/eval.json"} if self.held_out else {"data.eval_fraction": 0.2}),
            **({} if self.kind == "sft" else {"train.stage": self.kind}),
            "evaluate.task": task,
            "evaluate.max_new_tokens": tokens,
        }

    def _task(self) -> tuple[str, int]:
        if self.calls.rows:
            return "tools", _ANSWER_TOKENS
        return ("classification", _LABEL_TOKENS) if self.labels else ("generation", _ANSWER_TOKENS)

    def snippet(self) -> str:
        """The lines of a spec.yaml that use the data set."""
        keys = [(*name.split("."), value) for name, value in self._keys(self.folder.as_posix()).items()]
        sections = itertools.groupby(keys, key=itemgetter(0))
        lines = ((f"{name}:", *(f"  {key}: {value}" for _, key, value in inner)) for name, inner in sections)
        return "\n".join(itertools.chain.from_iterable(lines))


def import_file(path: Path, folder: Path, recipe: Recipe, *, overwrite: bool = False) -> Imported:
    """Writes folder/train.json and folder/eval.json and returns what they hold; rows that cannot be used are left out.

    Raises InputError for an unreadable file, an unknown column, no usable row, or a folder with another data set.
    """
    loaded = load(path, recipe.kind, recipe.columns, recipe.system, react=recipe.kind == "sft")
    rows, inferred = _with_tools([tidy(row) for row in _usable(path, loaded)])
    train, held_out = _split(path, recipe, rows)
    _write(folder, train, held_out, recipe.kind, overwrite)
    return Imported(
        folder,
        len(train),
        len(held_out),
        loaded.problems,
        labels=label_counts(rows),
        encoding="" if path.suffix.lower() in _BINARY else detect_encoding(path).removesuffix("-sig"),
        calls=Calling(sum(any(calls_of(row)) for row in rows), inferred),
        kind=recipe.kind,
        columns=columns_of(path, recipe),
        first=next(iter(train), None),
    )


def _write(
    folder: Path, train: Sequence[Conversation], held_out: Sequence[Conversation], kind: Kind, overwrite: bool
) -> None:
    """Write the two files. Raises InputError where the folder holds another data set; the same one again is none."""
    texts = {"train.json": text_of_rows(train, kind), "eval.json": text_of_rows(held_out, kind) if held_out else None}
    others = [folder / name for name, text in texts.items() if _text(folder / name) != text]
    if others and not overwrite and (folder / "train.json").exists():
        raise InputError(f"{folder} already holds a data set", "give another --out, or --overwrite")
    for path in others:
        if (text := texts[path.name]) is None:
            path.unlink()  # of a data set that held rows out
        else:
            write_text(path, text)


def _text(path: Path) -> str | None:
    """What a file holds, or None where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _split(path: Path, recipe: Recipe, rows: list[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    if not recipe.fraction:
        return rows, []
    groups = _groups(path, recipe.group, rows) if recipe.group else None
    return split(rows, recipe.fraction, seed=recipe.seed, groups=groups)


def columns_of(path: Path, recipe: Recipe) -> Mapping[str, str]:
    """Role → column of a file, as an import takes them by the names of its first rows."""
    head = [row for _, row in itertools.islice(read_rows(path), LOOK_AT) if not isinstance(row, RowError)]
    return detect_format(head, recipe.kind, recipe.columns, recipe.system).columns


def _with_tools(rows: list[Conversation]) -> tuple[list[Conversation], tuple[str, ...]]:
    """Rows that call tools and offer none, as ReAct's have them in their instructions, offer all that these rows call;
    and the names of those tools."""
    bare = list(filter(_is_bare, rows))
    tools = tools_called(bare)
    offered = json.dumps(tools, ensure_ascii=False)
    found = [replace(row, tools=offered) if _is_bare(row) else row for row in rows] if bare else rows
    return found, tuple(tool["function"]["name"] for tool in tools)


def _is_bare(row: Conversation) -> bool:
    return not row.tools and any(calls_of(row))


def _usable(path: Path, loaded: Loaded) -> tuple[Conversation, ...]:
    if not loaded.conversations:
        first = f": {loaded.problems[0].message}" if loaded.problems else ""
        raise InputError(
            f"{path}: no row can be used{first}", "fix its rows, or choose other columns with --prompt and --label"
        )
    return loaded.conversations


def _groups(path: Path, column: str, rows: list[Conversation]) -> list[Hashable]:
    values = {row: None if isinstance(value, RowError) else value.get(column) for row, value in read_rows(path)}
    if all(value is None for value in values.values()):
        raise InputError(f"{path}: there is no column {column!r} to group by", "check the file's columns")
    return [str(values[row.row]) if values[row.row] not in (None, "") else None for row in rows]
