"""Which run has a result already: a look at its link, and where that does not help at the list of all runs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache
from orchestrator.runs import cache, store
from orchestrator.runs.cache import Result
from orchestrator.runs.store import Run


def holder(runs_dir: Path, stage: str, fingerprint: str, hashes: HashCache | None = None) -> Run | None:
    """A run whose stage ended well with this fingerprint (or this one of contents) and is whole, the newest that is
    known of, or None."""
    places = (f'$.stages."{stage}".{name}' for name in cache.PRINTS)
    having = "? in (json_extract(record, ?), json_extract(record, ?))", fingerprint, *places
    return _found(runs_dir, cache.stage(stage, fingerprint), lambda run: run.has(stage, fingerprint, hashes), having)


def trained(runs_dir: Path, name: str, fingerprint: str) -> Run | None:
    """The newest run of a name whose training has, or had, this fingerprint."""
    having = "name = ? and fingerprint = ?", name, fingerprint

    def trains(run: Run) -> bool:
        return bool(run.record["name"] == name and run.record.get("fingerprint") == fingerprint)

    return _found(runs_dir, cache.training(name, fingerprint), trains, having)


def _found(runs_dir: Path, result: Result, has: Callable[[Run], bool], having: tuple[str, ...]) -> Run | None:
    """The run that a result is linked to; where that one has it no longer, the newest of those that the list has."""
    if not runs_dir.is_dir():
        return None
    complete = cache.is_complete(runs_dir, _results)
    linked = cache.find(runs_dir, result)
    if linked is None and complete:
        return None
    for name in itertools.chain([linked] if linked else [], _listed(runs_dir, *having)):
        with contextlib.suppress(InputError):  # removed, or damaged
            if has(run := store.load(runs_dir / name)):
                cache.remember(run.folder, *([result] if name != linked else []))
                return run
    return None


def _results(folder: Path) -> Iterator[Result]:
    """All that a run has, for the cache; nothing where its record cannot be read."""
    with contextlib.suppress(InputError):
        record = store.load(folder).record
        yield from cache.trainings(record)
        for stage, entry in record["stages"].items():
            if entry.get("status") == "completed":
                yield from cache.results_of(stage, entry)


def _listed(runs_dir: Path, condition: str, *values: str) -> Iterator[str]:
    with store.index(runs_dir) as connection:
        query = f"select id from runs where {condition} order by id desc"  # nosec B608
        yield from (name for (name,) in connection.execute(query, values).fetchall())
