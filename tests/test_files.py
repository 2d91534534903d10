"""Files are whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.lib.files import SMALL, HashCache, read_json, read_json_lines, sha256, write_json, write_text


def test_text_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    write_text(target, "一\n")
    write_text(target, "二\n")
    assert target.read_bytes() == "二\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_a_failing_write_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_json(target, {"a": 2})
    assert read_json(target) == {"a": 1}
    assert list(tmp_path.iterdir()) == [target]


BREAKS = "一\u2028二\u2029\x85三\x0b\x0c\x1c四"
"""What `str.splitlines` takes for ends of lines, and JSON does not."""


def test_a_text_may_hold_what_other_readers_take_for_the_end_of_a_line(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    value = {"prompt": BREAKS}
    line = json.dumps(value, ensure_ascii=False)
    target.write_text(f'{line}\n\n{line}\n{{"half', encoding="utf-8")
    assert read_json_lines(target, growing=True) == [value, value]
    with pytest.raises(ValueError, match="Unterminated"):
        read_json_lines(target)


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, memory = tmp_path / "a", tmp_path / "hashes.json"
    target.write_text("one" * SMALL)
    first = HashCache(memory)
    assert first.sha256(target) == sha256(target)
    first.save()

    status = target.stat()
    target.write_text("two" * SMALL)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = HashCache(memory)
    assert second.sha256(target) == sha256(target), "same size, modification time and inode, and yet another file"
    second.save()

    digest = sha256(target)
    monkeypatch.setattr("orchestrator.lib.files.sha256", lambda path: "read")
    assert HashCache(memory).sha256(target) == digest, "untouched: not read again"
    assert HashCache(memory, paranoid=True).sha256(target) == "read"


def test_a_large_file_that_was_never_read_here_is_believed_and_named(tmp_path: Path) -> None:
    target, memory = tmp_path / "a", tmp_path / "hashes.json"
    target.write_text("one" * SMALL)
    hashes = HashCache(memory)
    assert hashes.matches(target, "0" * 64)
    assert hashes.believed == {str(target)}
    assert not HashCache(memory, trusting=False).matches(target, "0" * 64)
    assert not HashCache(memory, paranoid=True).matches(target, "0" * 64)
    hashes.sha256(target)
    assert not hashes.matches(target, "0" * 64)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"x": 1}', '{"x": []}'])
def test_a_damaged_memory_is_only_forgotten(tmp_path: Path, text: str) -> None:
    target, memory = tmp_path / "a", tmp_path / "hashes.json"
    target.write_text("one" * SMALL)
    memory.write_text(text)
    assert HashCache(memory).sha256(target) == sha256(target)
