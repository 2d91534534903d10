"""What may be used of the machine, in a container too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.lib import cpu, process
from orchestrator.machine.usage import PeakMemory, resident


@pytest.mark.parametrize(
    ("written", "affinity", "quota", "cores"),
    [
        ("max 100000", 8, None, 8),
        ("200000 100000", 8, 2, 2),
        ("800000 100000", 2, 8, 2),
        ("10000 100000", 8, 1, 1),
        ("nonsense", 3, None, 3),
    ],
)
def test_cores_are_those_that_the_container_gets(
    written: str, affinity: int, quota: int | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(written)
    monkeypatch.setattr(cpu, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    assert cpu.quota() == quota
    assert cpu.cores() == cores


def test_children_of_a_limited_container_start_no_more_threads_than_it_has_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu, "quota", lambda: None)
    assert "OMP_NUM_THREADS" not in process.child_environment({})
    monkeypatch.setattr(cpu, "quota", lambda: 1)
    assert process.child_environment({})["OMP_NUM_THREADS"] == "1"
    assert process.child_environment({"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert process.child_environment({})["OMP_NUM_THREADS"] == "5"


def test_the_most_memory_of_a_process_and_what_it_started() -> None:
    seen = PeakMemory(os.getpid())
    seen.look()
    assert seen.to_json()["main"] > 10_000_000
    assert resident(2**22 + 1) == 0
