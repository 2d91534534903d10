"""Many runs at once: which there are, and which is best.

A key names a figure or a parameter: `accuracy` (of the tuned model), `gguf-q4_k_m.accuracy`, `seconds`, or a parameter
of a sweep such as `learning_rate`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from orchestrator.evaluation import metric as table
from orchestrator.lib.errors import InputError
from orchestrator.runs import store

CONDITION = re.compile(r"\s*([\w.-]+)\s*(<=|>=|!=|=|<|>)\s*([-+.\deE]+)\s*")
PRIMARY_METRICS = tuple(sorted(table.ranked(), key=lambda name: not table.METRICS[name].tasks))
"""What runs are ranked by: the first of these that some run has, metrics of answers before all others."""
HEADS = ("id", "name", "status", "created_at", "sweep", "seconds")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs, in which order, and what to show of them."""

    name: str | None = None
    status: str | None = None
    where: Sequence[str] = ()
    """Conditions such as `accuracy>70`; all must hold."""
    sort: str | None = None
    """A key, best first; without one the newest run comes first."""
    show: Sequence[str] = ()
    """More keys."""


def listing(runs_dir: Path, wanted: Wanted) -> list[Json]:
    """A flat line for each run: id, name, status, created_at, sweep, seconds, then the figures by key."""
    if not runs_dir.is_dir():
        return []
    with store.index(runs_dir) as index:
        keys = _columns(index, wanted)
        figures = [_expression(index, key) for key in keys]
        columns = ", ".join([*HEADS, *(expression for expression, _ in figures)])
        rest, values = _rest(index, wanted)
        paths = [path for _, of in figures for path in of]
        found = index.execute(f"select {columns} from runs {rest}", [*paths, *values])  # keys are bound, too  # nosec B608
        return [dict(zip((*HEADS, *keys), line, strict=True)) for line in found]


def _columns(index: Connection, wanted: Wanted) -> list[str]:
    """The keys that are told of each run besides HEADS: its primary metric, and all that is asked for."""
    primary = islice((key for key in PRIMARY_METRICS if _is_known(index, key)), 1)  # one that no run has takes long
    asked = [*primary, *wanted.show, *(condition(text)[0] for text in wanted.where), wanted.sort or ""]
    return [key for key in dict.fromkeys(asked) if key and key not in HEADS]


def documents(runs_dir: Path, wanted: Wanted) -> str:
    """`{"runs": […]}`: the records without outputs. They are pasted, not parsed: there may be ten thousand."""
    found: list[tuple[str]] = []
    if runs_dir.is_dir():
        with store.index(runs_dir) as index:
            rest, values = _rest(index, wanted)
            found = index.execute(f"select record from runs {rest}", values).fetchall()  # nosec B608
    return '{"runs": [' + ",\n".join(text for (text,) in found) + "]}"


def best(runs_dir: Path, name: str | None = None, metric: str | None = None) -> Json:
    """The line of the finished run that does best. Raises InputError when none was measured."""
    for line in ranked(runs_dir, name, metric):
        if line["status"] == "completed" and line.get(metric or _measured_by(line)) is not None:
            return line
    raise InputError(
        f"no finished run{f' of {name!r}' if name else ''} was measured", "Make one with `orchestrator run`."
    )


def ranked(runs_dir: Path, name: str | None = None, metric: str | None = None) -> list[Json]:
    """A line for each run, best first; those without the figure come last, the newest first."""
    lines = listing(runs_dir, Wanted(name=name, sort=metric))
    key = metric or _measured_by(lines[0] if lines else {})
    sign = 1 if is_lower_better(key) else -1
    return sorted(lines, key=lambda line: (line.get(key) is None, sign * (line.get(key) or 0)))


def _measured_by(line: Json) -> str:
    return next((key for key in PRIMARY_METRICS if key in line), "")


def condition(text: str) -> tuple[str, str, float]:
    """Key, operator and number of a condition."""
    if match := CONDITION.fullmatch(text):
        try:
            return match[1], match[2], float(match[3])
        except ValueError:
            pass
    raise InputError(f"{text!r} is no condition", "Write it like 'accuracy>70' or 'gguf-q4_k_m.accuracy<=60', quoted.")


def is_lower_better(key: str) -> bool:
    """Whether a smaller value of a key is the better one."""
    return table.is_lower_better(key.rpartition(".")[2])


def _rest(index: Connection, wanted: Wanted) -> tuple[str, list[Any]]:
    """The `where` and `order by` of a query, and the values in them."""
    parts: list[str] = ["1"]
    values: list[Any] = []
    for column, value in (("name", wanted.name), ("status", wanted.status)):
        if value:
            parts.append(f"{column} glob ?")
            values.append(value)
    for key, operator, number in map(condition, wanted.where):
        expression, paths = _expression(index, key)
        parts.append(f"{expression} {operator} ?")
        values += [*paths, number]
    order = "id desc"
    if wanted.sort:
        expression, paths = _expression(index, wanted.sort)
        order = f"{expression} {'asc' if is_lower_better(wanted.sort) else 'desc'} nulls last, id desc"
        values += paths
    return f"where {' and '.join(parts)} order by {order}", values


def _expression(index: Connection, key: str) -> tuple[str, list[str]]:
    """SQL for a key, and the values in it. Raises InputError when no run knows the key."""
    if key in HEADS:
        return key, []
    if '"' in key or not _is_known(index, key):
        raise InputError(f"no run has a figure or parameter {key!r}", f"There are: {', '.join(_known(index))}.")
    return _extract(key)


def _extract(key: str) -> tuple[str, list[str]]:
    artifact, _, metric = key.rpartition(".")
    paths = [f'$.metrics."{artifact or "tuned"}"."{metric}"', f'$.parameters."{key}"']
    return "coalesce(json_extract(figures, ?), json_extract(figures, ?))", paths


def _is_known(index: Connection, key: str) -> bool:
    expression, paths = _extract(key)
    query = f"select 1 from runs where {expression} is not null limit 1"  # nosec B608
    return index.execute(query, paths).fetchone() is not None


def _known(index: Connection) -> list[str]:
    query = (
        "select distinct key from runs, json_each(figures, '$.metrics.tuned') union "
        "select distinct key from runs, json_each(figures, '$.parameters')"
    )
    return sorted([*(key for (key,) in index.execute(query)), "seconds"])
