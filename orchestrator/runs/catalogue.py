"""A cache of what the run records say, so that ten thousand of them answer at once.

`runs/.index.sqlite` holds nothing that run.json does not; it may be deleted at any time. An entry is renewed when
it is looked at and the status of its run.json differs. Where the file cannot be used, the cache lives in memory for
one question.
The machines of a cluster have one each: SQLite's write-ahead log cannot be shared over a network disk.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import platform
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.machine import environment

FILE = ".index.sqlite"
OTHERS = ".index-"
"""How the index of a cluster's machine begins; where there is one, others may work on runs without telling this one."""
VERSION = 3
DAMAGED = "damaged"
"""The status of a run whose record is not as it was written; its line says no more unless its copy is whole."""
TABLES = """
drop table if exists runs;
drop table if exists stages;
create table runs (
    id text primary key, stamp text, name text, fingerprint text,
    status text, created_at text, seconds real, sweep text, record text
);
create table stages (run text, stage text, fingerprint text);
create index runs_by_training on runs (name, fingerprint);
create index runs_by_status on runs (status, id, stamp);
create index stages_by_fingerprint on stages (stage, fingerprint);
create index stages_by_run on stages (run);
"""


class Look(enum.Enum):
    """What is looked at before a question is answered; each look costs the more the more runs there are."""

    ALL = enum.auto()
    """Every run: the answer is what the records say now."""
    UNFINISHED = enum.auto()
    """Runs that are new, or had not ended when they were last looked at. Enough for which stages are done: an ended run
    that is worked on again is forgotten first, and so is new."""
    NEW = enum.auto()
    """Runs that are not known yet. Enough for what a run is called and what it trains, which never change."""
    NONE = enum.auto()
    """Nothing: the answer may be old, so only a yes that is looked into counts."""


DOUBTED = {
    Look.ALL: "select id, stamp from runs",
    Look.UNFINISHED: "select id, stamp from runs where status in ('running', 'damaged')",
    Look.NEW: "select id, stamp from runs where status = 'damaged'",
}
"""Which of the known runs are looked at again."""

Json = dict[str, Any]
Read = Callable[[Path], Json]
"""A run's folder → its record. Raises InputError for one that cannot be read."""


@contextlib.contextmanager
def opened(runs_dir: Path, read: Read, look: Look = Look.ALL) -> Iterator[sqlite3.Connection]:
    """The index of a folder of runs, renewed as far as `look` says."""
    connection = _usable(_file(runs_dir))
    try:
        try:
            _renew(connection, runs_dir, read, look)
        except sqlite3.Error:  # a disk without locks, or one that is full
            connection.close()
            connection = _connect(":memory:")
            _renew(connection, runs_dir, read, look)
        yield connection
    finally:
        connection.close()


def forget(runs_dir: Path, name: str) -> None:
    """Make a run new to whoever asks next. Where that cannot be said, its coming results may be made a second time."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_usable(_file(runs_dir))) as connection, connection:
        connection.execute("delete from runs where id = ?", (name,))
        connection.execute("delete from stages where run = ?", (name,))


def _file(runs_dir: Path) -> Path:
    return runs_dir / (f"{OTHERS}{platform.node()}.sqlite" if environment.scheduler() else FILE)


def _usable(file: Path) -> sqlite3.Connection:
    for _ in range(2):  # a damaged file is removed, and made anew the second time
        try:
            return _connect(str(file))
        except sqlite3.OperationalError:
            break
        except sqlite3.DatabaseError:
            file.unlink(missing_ok=True)
    return _connect(":memory:")


def _connect(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=10)
    try:
        connection.execute("pragma synchronous = off")  # a cache need not wait for the disk
        if _version(connection) != VERSION:
            _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("pragma journal_mode = wal")  # survives kill -9; the file remembers it
    connection.execute("begin immediate")  # who comes second waits here, and must not drop what the first one made
    if _version(connection) != VERSION:
        for statement in (*TABLES.strip().split(";"), f"pragma user_version = {VERSION}"):
            connection.execute(statement)
    connection.commit()


def _version(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("pragma user_version").fetchone()[0]
    return found


def _renew(connection: sqlite3.Connection, runs_dir: Path, read: Read, look: Look) -> None:
    if look is Look.NONE:
        return
    listed = os.listdir(runs_dir)  # noqa: PTH208 - of ten thousand
    if look is Look.UNFINISHED and any(name.startswith(OTHERS) for name in listed):
        look = Look.ALL
    there = {name for name in listed if not name.startswith(".")}
    known = {name for (name,) in connection.execute("select id from runs")}
    before = dict(connection.execute(DOUBTED[look]))
    now = _stamps(runs_dir, (there - known) | before.keys())
    changed = dict(now.items() - before.items())
    gone = (known - there) | (before.keys() - now.keys())
    if not changed and not gone:
        return
    with connection:
        connection.execute("begin immediate")  # what was seen before others had their turn may be older than theirs
        fresh = _stamps(runs_dir, changed)
        for name in (*gone, *changed):
            connection.execute("delete from runs where id = ?", (name,))
            connection.execute("delete from stages where run = ?", (name,))
        for name, record in _readable(runs_dir, fresh, read):
            _insert(connection, name, fresh[name], record)


def _stamps(runs_dir: Path, names: Iterable[str]) -> dict[str, str]:
    """Folder → what changes whenever its run.json is written: time, size and inode. Other folders are left out."""
    found = {}
    for name in names:
        with contextlib.suppress(OSError):  # not a run, or removed just now
            found[name] = _stamp(f"{runs_dir}/{name}/{layout.RECORD}")
            continue
        with contextlib.suppress(OSError):
            found[name] = _stamp(f"{runs_dir}/{name}/{layout.RECORD_COPY}")
    return found


def _stamp(file: str) -> str:
    status = os.stat(file)  # noqa: PTH116 - 10,000 times faster than Path
    return f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_size} {status.st_ino}"


def _readable(runs_dir: Path, names: Mapping[str, str], read: Read) -> Iterator[tuple[str, Json]]:
    for name in names:
        try:
            yield name, read(runs_dir / name)
        except InputError as error:  # a damaged run must not hide the others, nor be hidden by them
            yield name, {"id": name, "status": DAMAGED, "problem": error.message, "stages": {}}


def _insert(connection: sqlite3.Connection, name: str, stamp: str, record: Json) -> None:
    heads = [record.get(key) for key in ("name", "fingerprint", "status", "created_at")]
    seconds = round(sum(entry.get("seconds") or 0 for entry in record["stages"].values()), 1)
    text = json.dumps(without_outputs(record), ensure_ascii=False, separators=(",", ":"))
    values = (name, stamp, *heads, seconds, (record.get("sweep") or {}).get("id"), text)
    connection.execute(f"insert or replace into runs values ({', '.join('?' * len(values))})", values)
    stages = record["stages"].items()
    done = [(name, stage, entry.get("fingerprint")) for stage, entry in stages if entry.get("status") == "completed"]
    connection.executemany("insert into stages values (?, ?, ?)", done)


def without_outputs(record: Json) -> Json:
    """A record as `runs list --json` shows it."""
    stages = {
        stage: {key: value for key, value in entry.items() if key != "outputs"}
        for stage, entry in record["stages"].items()
    }
    return {**record, "stages": stages}
