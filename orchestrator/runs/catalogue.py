"""The list of runs: what their records say, so that ten thousand of them answer at once.

`runs/.index.sqlite` holds nothing that run.json does not; it may be deleted at any time. Each question looks at
the status of every run.json, and reads those that changed. Where the file cannot be used, the list lives in memory for
one question.
The machines of a cluster have one each: SQLite's write-ahead log cannot be shared over a network disk.
"""

from __future__ import annotations

import contextlib
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
VERSION = 5
DAMAGED = "damaged"
"""The status of a run whose record is not as it was written; its line says no more unless its copy is whole."""
TABLES = """
drop table if exists runs;
drop table if exists stages;
create table runs (
    id text primary key, stamp text, name text, fingerprint text,
    status text, created_at text, seconds real, sweep text, figures text, record text
);
create index runs_by_training on runs (name, fingerprint);
"""


Json = dict[str, Any]
Read = Callable[[Path], Json]
"""A run's folder → its record. Raises InputError for one that cannot be read."""


@contextlib.contextmanager
def opened(runs_dir: Path, read: Read) -> Iterator[sqlite3.Connection]:
    """The list of a folder of runs, as their records are now."""
    connection = _usable(_file(runs_dir))
    try:
        try:
            _renew(connection, runs_dir, read)
        except sqlite3.Error:  # a disk without locks, or one that is full
            connection.close()
            connection = _connect(":memory:")
            _renew(connection, runs_dir, read)
        yield connection
    finally:
        connection.close()


def _file(runs_dir: Path) -> Path:
    return runs_dir / (f".index-{platform.node()}.sqlite" if environment.scheduler() else FILE)


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


def _renew(connection: sqlite3.Connection, runs_dir: Path, read: Read) -> None:
    listed = os.listdir(runs_dir)  # noqa: PTH208 - of ten thousand
    there = {name for name in listed if not name.startswith(".")}
    before = dict(connection.execute("select id, stamp from runs"))
    now = _stamps(runs_dir, there)
    changed = dict(now.items() - before.items())
    gone = before.keys() - now.keys()
    if not changed and not gone:
        return
    with connection:
        connection.execute("begin immediate")  # what was seen before others had their turn may be older than theirs
        fresh = _stamps(runs_dir, changed)
        for name in (*gone, *changed):
            connection.execute("delete from runs where id = ?", (name,))
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
    texts = [_compact(figures(record)), _compact(without_outputs(record))]
    values = (name, stamp, *heads, seconds, (record.get("sweep") or {}).get("id"), *texts)
    connection.execute(f"insert or replace into runs values ({', '.join('?' * len(values))})", values)


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def figures(record: Json) -> Json:
    """What a list may tell of a run, apart from all else that its record says: to look for one figure in ten thousand
    whole records takes half a second."""
    metrics = {
        artifact: {key: found["value"] for key, found in of.items() if isinstance(found, dict) and "value" in found}
        for artifact, of in record.get("metrics", {}).items()
    }
    return {"metrics": metrics, "parameters": (record.get("sweep") or {}).get("parameters", {})}


def without_outputs(record: Json) -> Json:
    """A record as `runs list --json` shows it."""
    stages = {
        stage: {key: value for key, value in entry.items() if key != "outputs"}
        for stage, entry in record["stages"].items()
    }
    return {**record, "stages": stages}
