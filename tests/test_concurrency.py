"""Many processes in one folder of runs: no lost update, no doubled work, and no lock outlives its process."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HOST, HashCache, remove_leftovers, write_text
from orchestrator.lib.step import Step
from orchestrator.runs import reuse, store
from orchestrator.runs.locks import locked
from tests.faults import stand_in, tool
from tests.faults.tool import Call

MANY = 32
STEP = Step("train", "train", ("train",))


def at_once(work: Callable[[int], int | None], count: int = MANY) -> list[int]:
    """The exit codes of so many forked processes that do a piece of work at the same moment."""
    reader, writer = os.pipe()
    children = [_child(work, number, reader, writer) for number in range(count)]
    os.close(reader)
    os.close(writer)  # the end of the pipe is the start signal for all
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _child(work: Callable[[int], int | None], number: int, reader: int, writer: int) -> int:
    if child := os.fork():
        return child
    code = 99
    try:
        os.close(writer)
        os.read(reader, 1)
        code = work(number) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def test_runs_made_at_once_are_all_there_and_all_in_the_index(tmp_path: Path) -> None:
    def make(number: int) -> None:
        for _ in range(3):
            run = store.create(tmp_path, "news", fingerprint=str(number))
            run.begin(STEP, str(number), ())
            run.end("train", "completed", 1.0, 0, [])
            found = reuse.holder(tmp_path, "train", str(number))
            assert found is not None

    assert at_once(make) == [0] * MANY
    assert len(list(store.every(tmp_path))) == 3 * MANY
    counted = Counter(run.record["fingerprint"] for run in store.every(tmp_path))
    assert counted == {str(number): 3 for number in range(MANY)}
    with store.index(tmp_path) as index:
        assert index.execute("select count(*) from runs where status = 'running'").fetchone() == (3 * MANY,)
    assert list(tmp_path.glob(".*.tmp")) == []


def test_one_file_written_by_many_is_always_whole(tmp_path: Path) -> None:
    file = tmp_path / "value.json"

    def write(number: int) -> None:
        for _ in range(5):
            write_text(file, json.dumps([number] * 5000), durable=False)
            assert len(set(json.loads(file.read_text()))) == 1

    assert at_once(write) == [0] * MANY
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_a_cache_of_hashes_saved_by_many_stays_readable(tmp_path: Path) -> None:
    big = tmp_path / "weights"
    big.write_bytes(b"x" * (1 << 20))

    def save(number: int) -> None:
        cache = HashCache(tmp_path / "cache/hashes.json")
        cache.sha256(big)
        cache.save()

    assert at_once(save) == [0] * MANY
    assert list(json.loads((tmp_path / "cache/hashes.json").read_text())) == [str(big)]


def test_only_one_works_on_a_run(tmp_path: Path) -> None:
    run = store.create(tmp_path, "news")

    def work(number: int) -> int:
        try:
            with locked(run.folder):
                time.sleep(1.0)
        except InputError as error:
            assert "another orchestrator is working" in error.message
            return 2
        return 0

    assert sorted(at_once(work)) == [0] + [2] * (MANY - 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_free(tmp_path: Path, number: signal.Signals) -> None:
    run = store.create(tmp_path, "news")

    def die(_: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with locked(run.folder):
            os.kill(os.getpid(), number)

    assert at_once(die, 1) == [-number]
    assert (run.folder / layout.LOCK).exists()
    with locked(run.folder):
        pass


def test_temporary_files_of_the_living_stay_and_those_of_the_dead_go(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    for owner in (os.getpid(), dead):
        (tmp_path / f".run.json.{owner}-{HOST}-abcd.tmp").write_text("")
        (tmp_path / f".20260101-news.{owner}-{HOST}-abcd.tmp").mkdir()
    others = {".mine.tmp", f".run.json.{dead}-00000000-abcd.tmp"}  # somebody else's, another machine's
    for name in others:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    mine = f"{os.getpid()}-{HOST}-abcd.tmp"
    assert {path.name for path in tmp_path.iterdir()} == {f".run.json.{mine}", f".20260101-news.{mine}", *others}


def test_tools_on_one_run_at_once_do_each_stage_once(tmp_path: Path) -> None:
    project = stand_in.make(tmp_path)
    assert tool.run(tmp_path, Call(("train", "-q"))).code == 0

    def go_on(number: int) -> int:
        own = tmp_path / f"tool-{number}"
        own.mkdir()
        for name in ("project", "llama.cpp", "cache"):
            (own / name).symlink_to(tmp_path / name)
        return tool.run(own, Call()).code

    codes = at_once(go_on, 6)
    assert set(codes) <= {0, 2} and 0 in codes
    started = Counter(line.split()[0] for line in tool.ledger(project))
    assert len(started) == 21 and set(started.values()) == {1}
    assert len(list((project / "runs").glob("2*"))) == 1
