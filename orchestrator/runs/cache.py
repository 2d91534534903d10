"""Which run has a result: `runs/.cache/stages/<stage>/<fingerprint>` is a link to it.

One look at a path answers, the same to every tool and every machine on the disk. The links say nothing that the records
do not: one is believed only once its run has been looked into, and all of them may be deleted at any time. A run that
no link is known of, because it came by hand or from an earlier version, gets its links when a process asks first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.lib import layout
from orchestrator.lib.files import temporary_beside

FOLDER = ".cache"
PRINTS = ("fingerprint", "content_fingerprint")
"""What a stage's result is found by: how it came about, or the contents of what it was made from."""
_asked: set[str] = set()
"""Folders of runs that this process has looked through."""


class Result(NamedTuple):
    """What a run has: a path in three parts, below the cache."""

    kind: str
    name: str
    key: str


def stage(name: str, fingerprint: str) -> Result:
    """A stage that ended well with this fingerprint."""
    return Result("stages", name, fingerprint)


def results_of(name: str, entry: Mapping[str, Any]) -> list[Result]:
    """What the record of a stage that ended well says of it."""
    return [stage(name, entry[kind]) for kind in PRINTS if entry.get(kind)]


def training(name: str, fingerprint: str) -> Result:
    """A run of this name that trains, or trained, what has this fingerprint."""
    return Result("trainings", name, fingerprint)


def trainings(record: Mapping[str, Any]) -> Iterator[Result]:
    """What the record of a run says of its training."""
    if fingerprint := record.get("fingerprint"):
        yield training(record["name"], fingerprint)


def _known(run: str) -> Result:
    """A run whose results have links."""
    return Result("known", "runs", run)


def remember(folder: Path, *results: Result) -> None:
    """Link results to the run in a folder, the newest that has them; where that fails, the run is no longer known."""
    try:
        for result in results:
            _link(folder.parent, result, folder.name)
    except OSError:
        _asked.discard(str(folder.parent.absolute()))
        with contextlib.suppress(OSError):
            _path(folder.parent, _known(folder.name)).unlink(missing_ok=True)


def created(folder: Path, *results: Result) -> None:
    """The same for a run that was just created, so that nobody needs to look through its record for more."""
    remember(folder, *results, _known(folder.name))


def find(runs_dir: Path, result: Result) -> str | None:
    """The id of the run that a result is linked to; None where there is no link."""
    try:
        return _path(runs_dir, result).readlink().name
    except OSError:
        return None


def is_complete(runs_dir: Path, results_of: Callable[[Path], Iterable[Result]]) -> bool:
    """Whether every run that is there has its links, by now; False where a disk has no links.

    `results_of` reads what a run has, which is needed for runs that are not known yet.
    """
    if (place := str(runs_dir.absolute())) in _asked and (runs_dir / FOLDER).is_dir():
        return True
    try:
        linked = _path(runs_dir, _known("any")).parent
        linked.mkdir(parents=True, exist_ok=True)
        known = set(os.listdir(linked))  # noqa: PTH208 - of ten thousand
        there = {name for name in os.listdir(runs_dir) if not name.startswith(".")}  # noqa: PTH208
        for name in sorted(there - known):
            _introduce(runs_dir / name, results_of)
        for name in known - there:
            (linked / name).unlink(missing_ok=True)
    except OSError:
        return False
    _asked.add(place)
    return True


def _introduce(folder: Path, results_of: Callable[[Path], Iterable[Result]]) -> None:
    """Link what a run has, unless a newer one has it, too."""
    if not any((folder / name).is_file() for name in (layout.RECORD, layout.RECORD_COPY)):
        return  # a sweep, or not whole yet
    for result in results_of(folder):
        if (find(folder.parent, result) or "") < folder.name:
            _link(folder.parent, result, folder.name)
    _link(folder.parent, _known(folder.name), folder.name)


def _path(runs_dir: Path, result: Result) -> Path:
    return runs_dir / FOLDER / result.kind / result.name / result.key


def _link(runs_dir: Path, result: Result, run: str) -> None:
    """In one step, so that a reader sees the old link or the new one."""
    path = _path(runs_dir, result)
    target = f"../../../{run}"
    try:
        path.symlink_to(target)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _link(runs_dir, result, run)
    except FileExistsError:
        temporary = temporary_beside(runs_dir / FOLDER)
        temporary.symlink_to(target)
        temporary.replace(path)
