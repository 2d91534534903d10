"""Run records: the only reader and writer of run.json."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import DamagedError, InputError
from orchestrator.lib.files import HashCache, from_yaml, remove_leftovers, temporary_beside, write_text
from orchestrator.lib.step import Step
from orchestrator.runs import cache, schema
from orchestrator.runs.outputs import damage
from orchestrator.runs.schema import SCHEMA

if TYPE_CHECKING:
    import sqlite3

Json = dict[str, Any]


@dataclass(slots=True)
class Run:
    """A folder under runs/ and what its run.json says."""

    folder: Path
    record: Json = field(repr=False)
    problem: str = ""
    """What is wrong with run.json, where this is its copy's record."""

    @property
    def id(self) -> str:
        """Its name: time of creation, the spec's name, six random hexadecimal digits."""
        return str(self.record["id"])

    def stage(self, name: str) -> Json:
        """What is recorded of a stage; empty when it never started."""
        found: Json = self.record["stages"].get(name, {})
        return found

    @property
    def arguments(self) -> Json:
        """LLaMA-Factory's arguments of its training, as they ran."""
        found: Json = from_yaml((self.folder / layout.config("train")).read_text(encoding="utf-8"))
        return found

    def has(self, stage: str, fingerprint: str, hashes: HashCache | None = None) -> bool:
        """Whether a stage ended well with this fingerprint and its outputs are as they were.

        Sizes are compared; with `hashes`, contents too, as far as `HashCache.matches` looks.
        """
        recorded = self.stage(stage)
        if recorded.get("status") != "completed" or fingerprint not in (recorded.get(name) for name in cache.PRINTS):
            return False
        return not any(damage(self.folder, output, hashes) for output in recorded.get("outputs", ()))

    def begin(self, step: Step, fingerprint: str, argv: tuple[str, ...], content_fingerprint: str = "") -> None:
        """Record that a stage starts. What was recorded of it before is no longer true, so this comes first."""
        replaces = step.stage in self.record["stages"]
        self.record["stages"][step.stage] = {
            "status": "running",
            "fingerprint": fingerprint,
            **({"content_fingerprint": content_fingerprint} if content_fingerprint else {}),
            "argv": list(argv),
            "started_at": now(),
            **({"speed": dict(step.speed)} if step.speed else {}),
        }
        self.save(durable=replaces)

    def end(self, stage: str, status: str, seconds: float, exit_code: int | None, outputs: list[Json]) -> None:
        """Record how a stage ended."""
        entry = self.record["stages"][stage]
        entry |= {"status": status, "seconds": round(seconds, 3), "exit_code": exit_code, "outputs": outputs}
        if status == "completed":  # first: a link that says too much is found out
            cache.remember(self.folder, *cache.results_of(stage, entry))
        self.save()

    def forget(self, stage: str) -> None:
        """Drop what is recorded of a stage, before its outputs are replaced."""
        if self.record["stages"].pop(stage, None):
            self.save()

    def take_over(self, stage: str, entry: Json, fingerprint: str, donor: str) -> None:
        """Say of a stage that its outputs were taken from another run; what is recorded next is written with it.

        Until then it is not there, and would be taken over once more.
        """
        self.record["stages"][stage] = {**entry, "fingerprint": fingerprint, "reused_from": donor}

    def set(self, **values: Any) -> None:
        """Change top-level fields and write the record, unless it says so already."""
        if any(self.record.get(name) != value for name, value in values.items()):
            self.record.update(values)
            self.save()

    def resume(self, **values: Any) -> None:
        """Record that it is being worked on, for the first time or again, and change other fields with that."""
        self.record.pop("files", None)  # they may change from now on
        self.set(status="running", finished_at=None, **values)

    def save(self, durable: bool = True) -> None:
        """Write run.json in one step. Only what may not be lost with the power is worth a wait for the disk.

        A run that has ended, and may have taken days, has its record twice.
        """
        text, copy = schema.to_text(self.record), self.folder / layout.RECORD_COPY
        if self.record["status"] == "running":
            copy.unlink(missing_ok=True)
        else:  # first: who reads the record of an ended run finds the copy, too
            write_text(copy, text, durable=False)
        write_text(self.folder / layout.RECORD, text, durable)
        self.problem = ""


def create(runs_dir: Path, name: str, **values: Any) -> Run:
    """A new, empty run with an id of its own, however many tools create runs at the same moment."""
    while True:
        identifier = new_id(name)
        record = {"schema": SCHEMA, "id": identifier, "name": name, "status": "running", "created_at": now()}
        record |= {"finished_at": None, "stages": {}, "metrics": {}, "lineage": {}, "environment": {}, "sweep": None}
        if _placed(runs_dir / identifier, record | values):
            cache.created(runs_dir / identifier, *cache.trainings(record | values))
            return Run(runs_dir / identifier, record | values)


def new_id(name: str) -> str:
    """`TIME-NAME-XXXXXX`: when in UTC, and six random hexadecimal digits."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{name}-{os.urandom(3).hex()}"


def _placed(folder: Path, record: Json) -> bool:
    """Make a run's folder with its record in it, both or neither; False when there is such a folder already."""
    temporary = temporary_beside(folder)
    _tidy(folder.parent)
    try:
        write_text(temporary / layout.RECORD, schema.to_text(record), durable=False)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.is_dir():
            return False
        raise
    return True


@functools.cache
def _tidy(runs_dir: Path) -> None:
    """Remove what killed tools left, once: a sweep makes thousands of runs, and looking through them takes longer."""
    remove_leftovers(runs_dir)


def load(folder: Path) -> Run:
    """A run from its folder; where run.json is damaged, from the copy of it that an ended run has.

    Raises InputError when it is no run, or was written by a newer version, DamagedError when the copy is of no use.
    """
    if not is_run(folder):
        raise InputError(f"no run at {folder.name!r}", "List the runs there are with `orchestrator runs list`.")
    try:
        return Run(folder, schema.read(folder / layout.RECORD))
    except DamagedError as error:
        with contextlib.suppress(DamagedError):
            return Run(folder, schema.read(folder / layout.RECORD_COPY), error.message)
        raise


def is_run(folder: Path) -> bool:
    """Whether there is a record of a run, or its copy, in a folder."""
    return (folder / layout.RECORD).is_file() or (folder / layout.RECORD_COPY).is_file()


def doubt(run: Run) -> str:
    """What is wrong with the record of a run: damaged, or not the same as its copy; empty when nothing is."""
    if run.problem or not schema.is_digested(run.record) or run.record["status"] == "running":
        return run.problem
    try:
        same = schema.read(run.folder / layout.RECORD_COPY) == run.record
    except DamagedError as error:
        return error.message
    return "" if same else f"{run.folder.name}/{layout.RECORD_COPY} says something else than {layout.RECORD}"


def every(runs_dir: Path) -> Iterator[Run]:
    """All readable runs, newest first."""
    for folder in _folders(runs_dir):
        try:
            yield load(folder)
        except InputError:  # one damaged run must not hide the others; `runs show` says what is wrong with it
            continue


def find(runs_dir: Path, wanted: str | None) -> Run:
    """The run that `wanted` names: an id, the start or a part of one, a folder, or None for the newest.

    Raises InputError when there is none or more than one, and what `load` raises.
    """
    return load(find_folder(runs_dir, wanted))


def find_folder(runs_dir: Path, wanted: str | None) -> Path:
    """The folder of the run that `wanted` names, be its record readable or not. Raises InputError as `find` does."""
    for exact in (Path(wanted), runs_dir / wanted) if wanted else ():
        if is_run(exact):
            return exact
    matches = [folder for folder in _folders(runs_dir) if not wanted or wanted in folder.name]
    if not matches:
        what = f"no run matches {wanted!r}" if wanted else f"no runs in {runs_dir.name}/"
        raise InputError(what, "List the runs with `orchestrator runs list`, or make one with `orchestrator run`.")
    if wanted and len(matches) > 1:
        raise InputError(
            f"{wanted!r} matches {len(matches)} runs: {', '.join(folder.name for folder in matches[:3])}…",
            "Give more of the id.",
        )
    return matches[0]


@contextlib.contextmanager
def index(runs_dir: Path) -> Iterator[sqlite3.Connection]:
    """The list of all runs, for SQL queries; its table is described in catalogue.py."""
    from orchestrator.runs.catalogue import opened  # a plan asks no list

    with opened(runs_dir, _indexed) as connection:
        yield connection


def _indexed(folder: Path) -> Json:
    from orchestrator.runs.catalogue import DAMAGED

    run = load(folder)
    return {**run.record, "status": DAMAGED, "problem": run.problem} if run.problem else run.record


def _folders(runs_dir: Path) -> list[Path]:
    """Folders of runs, newest first."""
    if not runs_dir.is_dir():
        return []
    found = sorted(runs_dir.iterdir(), key=lambda path: path.name, reverse=True)
    return [path for path in found if not path.name.startswith(".") and is_run(path)]


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
