"""Downloads: whole or not there, and nothing unpacked where it should not be."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from orchestrator.lib import fetch
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.fetch import Pin, download, unpack_source
from orchestrator.lib.files import sha256


def pin(content: bytes, tmp_path: Path) -> Pin:
    file = tmp_path / "content"
    file.write_bytes(content)
    return Pin("thing==1", "thing-1.whl", sha256(file), len(content))


def arrives(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Let pip's download bring some content; returns the list of what was asked for."""
    asked: list[str] = []

    def bring(wanted: Pin, temporary: Path, progress: fetch.Progress) -> Path:
        asked.append(wanted.requirement)
        (temporary / wanted.filename).write_bytes(content)
        return temporary / wanted.filename

    monkeypatch.setattr(fetch, "_pip_download", bring)
    return asked


def test_a_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, asked = pin(b"good", tmp_path), arrives(monkeypatch, b"good")
    assert download(wanted, tmp_path / "cache") == download(wanted, tmp_path / "cache")
    assert asked == ["thing==1"]


def test_a_damaged_file_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, asked = pin(b"good", tmp_path), arrives(monkeypatch, b"good")
    download(wanted, tmp_path / "cache").write_bytes(b"cut")
    assert download(wanted, tmp_path / "cache").read_bytes() == b"good"
    assert len(asked) == 2


def test_something_else_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = pin(b"good", tmp_path), arrives(monkeypatch, b"evil")
    with pytest.raises(MissingError, match="sha256"):
        download(wanted, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_progress_survives_folders_that_vanish(tmp_path: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            (tmp_path / "a" / "b").mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / "b" / "thing-1.whl").write_bytes(b"12345")
            shutil.rmtree(tmp_path / "a", ignore_errors=True)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert {fetch._size(tmp_path, "thing-1.whl") for _ in range(500)} <= {0, 5}
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", ["top/../../evil", "top/a/../../../evil", "/evil"])
def test_an_archive_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match="unsafe") if ".." in name else _harmless():
        unpack_source(archive, tmp_path / "inside" / "deep", lambda _: True)
    assert not [path for path in tmp_path.rglob("evil") if not path.is_relative_to(tmp_path / "inside" / "deep")]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("top/link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(InputError, match="unsafe"):
        unpack_source(archive, tmp_path / "inside", lambda _: True)


def _harmless() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()
