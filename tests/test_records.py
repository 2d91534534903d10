"""Run records: written whole, found by name and by fingerprint, indexed without being trusted blindly."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.runs import cache, catalogue, outputs, prune, reuse, store
from orchestrator.runs.store import Run

TRAIN = Step("train", "train", ("train",))


def trained(runs_dir: Path, fingerprint: str, name: str = "news", text: str = "weights") -> Run:
    """A run with one finished stage that left one file."""
    run = store.create(runs_dir, name, fingerprint=fingerprint)
    run.begin(TRAIN, fingerprint, TRAIN.argv)
    write_text(run.folder / "train/weights", text)
    left = outputs.finished(run.folder, ["train/weights"], HashCache(runs_dir / "hashes"))
    run.end("train", "completed", 1.0, 0, left)
    return run


def renamed(run: Run, identifier: str) -> Run:
    """A run with an id of the test's choice: ids of one second sort by chance."""
    run.record["id"] = identifier
    run.save()
    return Run(run.folder.rename(run.folder.with_name(identifier)), run.record)


def test_ids_are_unique_when_many_begin_at_once(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(store.create(tmp_path, "news").id)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 20


def test_finds_the_newest_run_a_part_of_an_id_and_a_folder(tmp_path: Path) -> None:
    old = renamed(store.create(tmp_path, "news"), "20260101T000000Z-news-aaaaaa")
    new = renamed(store.create(tmp_path, "news"), "20260102T000000Z-news-bbbbbb")
    assert store.find(tmp_path, None).id == new.id
    assert store.find(tmp_path, "aaaaaa").id == store.find(tmp_path, str(old.folder)).id == old.id


@pytest.mark.parametrize(
    ("wanted", "message"), [("cccccc", "no run matches 'cccccc'"), ("news", "'news' matches 2 runs")]
)
def test_says_why_a_run_is_not_found(tmp_path: Path, wanted: str, message: str) -> None:
    store.create(tmp_path, "news")
    store.create(tmp_path, "news")
    with pytest.raises(InputError, match=message):
        store.find(tmp_path, wanted)


def test_no_runs_at_all(tmp_path: Path) -> None:
    assert reuse.holder(tmp_path / "none", "train", "a") is None
    assert list(store.every(tmp_path / "none")) == []
    with pytest.raises(InputError, match="no runs in none/"):
        store.find(tmp_path / "none", None)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ('{"schema": 2}', "has schema 2"), ("[]", "has schema None")]
)
def test_a_damaged_run_is_explained_and_hides_no_other(tmp_path: Path, text: str, message: str) -> None:
    damaged, sound = store.create(tmp_path, "news"), trained(tmp_path, "a")
    (damaged.folder / "run.json").write_text(text)
    with pytest.raises(InputError, match=message):
        store.load(damaged.folder)
    assert [run.id for run in store.every(tmp_path)] == [sound.id]
    assert reuse.holder(tmp_path, "train", "a") is not None


def test_a_stage_is_held_by_the_newest_run_whose_files_are_whole(tmp_path: Path) -> None:
    old = renamed(trained(tmp_path, "a"), "20260101T000000Z-news-aaaaaa")
    new = renamed(trained(tmp_path, "a"), "20260102T000000Z-news-bbbbbb")
    assert _holder(tmp_path, "a") == new.id
    write_text(new.folder / "train/weights", "shorter or longer")
    assert _holder(tmp_path, "a") == old.id
    (old.folder / "train/weights").unlink()
    assert _holder(tmp_path, "a") is None


def test_contents_count_where_hashes_are_asked_for(tmp_path: Path) -> None:
    run = trained(tmp_path, "a", text="weights")
    write_text(run.folder / "train/weights", "WEIGHTS")
    assert run.has("train", "a")
    assert not run.has("train", "a", HashCache(tmp_path / "hashes", paranoid=True))


def test_the_run_of_a_training_is_found_by_name(tmp_path: Path) -> None:
    ours = trained(tmp_path, "a", name="news")
    trained(tmp_path, "a", name="other")
    found = reuse.trained(tmp_path, "news", "a")
    assert found is not None
    assert found.id == ours.id
    assert reuse.trained(tmp_path, "news", "b") is None


def test_the_index_follows_what_changes(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    assert _holder(tmp_path, "a") == run.id
    run.begin(TRAIN, "b", ())
    assert _holder(tmp_path, "a") is None
    run.end("train", "completed", 1.0, 0, [])
    assert _holder(tmp_path, "b") == run.id
    run.folder.rename(tmp_path.parent / "elsewhere")
    assert _holder(tmp_path, "b") is None


def test_what_an_ended_run_does_later_is_found(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    run.set(status="completed")
    assert _holder(tmp_path, "a") == run.id
    run.resume()
    run.begin(TRAIN, "b", ())
    assert _holder(tmp_path, "b") is None
    run.end("train", "completed", 1.0, 0, [])
    run.set(status="completed")
    assert _holder(tmp_path, "b") == run.id


def test_no_record_is_looked_at_for_what_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, "a").set(status="completed")
    trained(tmp_path, "b")
    assert _holder(tmp_path, "none") is None
    looked: list[Path] = []
    monkeypatch.setattr(store, "load", looked.append)
    monkeypatch.setattr(catalogue, "opened", looked.append)
    assert _holder(tmp_path, "none") is None
    assert reuse.trained(tmp_path, "news", "none") is None
    assert looked == []


def test_runs_that_other_machines_work_on_need_no_index(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    run.set(status="completed")
    assert _holder(tmp_path, "b") is None
    (tmp_path / ".index-node-7.sqlite").touch()
    run.begin(TRAIN, "b", ())
    run.end("train", "completed", 1.0, 0, [])
    assert _holder(tmp_path, "b") == run.id


def another_process() -> None:
    """As if this one had not asked yet."""
    cache._asked.clear()


def links(runs_dir: Path) -> Path:
    return runs_dir / cache.FOLDER


@pytest.mark.parametrize("asked", [False, True])
def test_lost_links_are_made_anew(tmp_path: Path, asked: bool) -> None:
    old, new = trained(tmp_path, "a"), trained(tmp_path, "b")
    if asked:
        assert _holder(tmp_path, "a") == old.id
    shutil.rmtree(links(tmp_path))
    assert (_holder(tmp_path, "a"), _holder(tmp_path, "b"), _holder(tmp_path, "c")) == (old.id, new.id, None)
    found = reuse.trained(tmp_path, "news", "a")
    assert found is not None
    assert found.id == old.id
    assert (links(tmp_path) / "stages/train/a").resolve() == old.folder.resolve()


def test_another_run_steps_in_for_one_that_was_removed(tmp_path: Path) -> None:
    old = renamed(trained(tmp_path, "a"), "20260101T000000Z-news-aaaaaa")
    new = trained(tmp_path, "a")
    assert _holder(tmp_path, "a") == new.id
    prune.remove(new.folder)
    assert _holder(tmp_path, "a") == old.id
    assert (links(tmp_path) / "stages/train/a").readlink().name == old.id
    prune.remove(old.folder)
    assert _holder(tmp_path, "a") is None


def test_a_run_that_was_copied_here_is_found(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert _holder(ours, "a") is None
    trained(ours, "b")
    assert _holder(ours, "a") is None
    run = trained(theirs, "a", name="天气")
    shutil.copytree(run.folder, ours / run.id)
    another_process()
    assert _holder(ours, "a") == run.id
    assert reuse.trained(ours, "天气", "a") is not None


def test_a_copy_under_an_older_name_takes_no_place(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    shutil.copytree(run.folder, tmp_path / "20200101T000000Z-copied-from-elsewhere")
    another_process()
    assert _holder(tmp_path, "a") == run.id


def test_a_disk_without_links_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links on this disk")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = trained(tmp_path, "a")
    assert (_holder(tmp_path, "a"), _holder(tmp_path, "b")) == (run.id, None)
    later = trained(tmp_path, "b")
    assert _holder(tmp_path, "b") == later.id


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    run, elsewhere = trained(tmp_path / "runs", "a"), trained(tmp_path / "elsewhere", "b")
    for fingerprint in ("a", "b"):
        link = links(tmp_path / "runs") / "stages/train" / fingerprint
        link.unlink(missing_ok=True)
        link.symlink_to(elsewhere.folder)
    assert _holder(tmp_path / "runs", "a") == run.id
    assert _holder(tmp_path / "runs", "b") is None


def test_unchanged_records_are_not_read_again(tmp_path: Path) -> None:
    trained(tmp_path, "a")
    read: list[str] = []

    def reading(folder: Path) -> catalogue.Json:
        read.append(folder.name)
        return store.load(folder).record

    for _ in range(2):
        with catalogue.opened(tmp_path, reading):
            pass
    assert len(read) == 1


@pytest.mark.parametrize("content", [b"no database at all, but more than a hundred bytes " * 4, b""])
def test_a_damaged_index_is_made_anew(tmp_path: Path, content: bytes) -> None:
    run = trained(tmp_path, "a")
    (tmp_path / catalogue.FILE).write_bytes(content)
    assert listed(tmp_path) == [run.id]
    with sqlite3.connect(tmp_path / catalogue.FILE) as index:
        assert index.execute("select id from runs").fetchall() == [(run.id,)]


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    with sqlite3.connect(tmp_path / catalogue.FILE) as index:
        index.executescript("create table runs (id text); pragma user_version = 99")
    assert listed(tmp_path) == [run.id]


def test_where_no_index_can_be_kept_one_is_made_for_the_question(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    (tmp_path / catalogue.FILE).mkdir()
    assert listed(tmp_path) == [run.id]


def test_many_may_ask_at_once(tmp_path: Path) -> None:
    run = trained(tmp_path, "a")
    found: list[str | None] = []

    def ask() -> None:
        trained(tmp_path, "other")
        found.append(_holder(tmp_path, "a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [run.id] * 8


def test_no_outputs_in_a_list() -> None:
    record = {"stages": {"train": {"status": "completed", "outputs": [1]}}, "id": "x"}
    assert catalogue.without_outputs(record) == {"stages": {"train": {"status": "completed"}}, "id": "x"}


def test_half_written_folders_are_no_runs(tmp_path: Path) -> None:
    write_json(tmp_path / ".removing-x" / "run.json", {})
    (tmp_path / "sweep").mkdir()
    assert list(store.every(tmp_path)) == []
    assert reuse.holder(tmp_path, "train", "a") is None


def listed(runs_dir: Path) -> list[str]:
    with store.index(runs_dir) as index:
        return [name for (name,) in index.execute("select id from runs")]


def _holder(runs_dir: Path, fingerprint: str) -> str | None:
    found = reuse.holder(runs_dir, "train", fingerprint)
    return found.id if found else None
