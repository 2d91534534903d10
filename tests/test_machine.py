"""What may be used of the machine, in a container too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.lib import cpu, process
from orchestrator.machine import environment
from orchestrator.machine.usage import PeakMemory, resident
from orchestrator.report import doctor_devices


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


def test_threads_wait_awake_for_a_short_time_unless_the_user_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert process.child_environment({})["GOMP_SPINCOUNT"] == process.SPINS
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert process.child_environment({})["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in process.child_environment({})
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert process.child_environment({})["OMP_NUM_THREADS"] == "5"


@pytest.fixture
def gb10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose GPU has no memory of its own, by what nvidia-smi says there."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n*name*) echo "NVIDIA GB10, [N/A], 580.95" ;;\n'
        '*compute_cap*) echo 12.1 ;;\n*) echo "[N/A], [N/A]" ;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    environment.gpus.cache_clear()
    yield
    environment.gpus.cache_clear()


@pytest.mark.usefixtures("gb10")
def test_a_gpu_without_memory_of_its_own_has_that_of_the_machine() -> None:
    assert environment.gpus() == [{"name": "NVIDIA GB10", "memory_mib": 0, "driver": "580.95"}]
    [told] = doctor_devices.gpus()
    assert told.detail == "NVIDIA GB10, shares the main memory, driver 580.95, bf16 (set train.bf16: true)"
    assert doctor_devices.memory() == psutil.virtual_memory().total
    assert 0 < environment.free_memory() <= doctor_devices.memory()


def test_the_most_memory_of_a_process_and_what_it_started() -> None:
    seen = PeakMemory(os.getpid())
    seen.look()
    assert seen.to_json()["main"] > 10_000_000
    assert resident(2**22 + 1) == 0
