"""What a result was made with: interpreter, packages, GPU, and the state of the project's own repository."""

from __future__ import annotations

import functools
import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.lib import cpu, process

SCHEDULERS = {"ray": "ORCHESTRATOR_RAY_TASK", "slurm": "SLURM_JOB_ID"}
"""Name → the variable that holds a job's number; the first is ours, for Ray has none."""


def describe(project: Path, versions: dict[str, str]) -> dict[str, Any]:
    """The environment as recorded in run.json; holds no secret and no user name."""
    return {
        "orchestrator": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "gpu": gpus(),
        "git": git_state(project),
    }


def scheduler() -> dict[str, str] | None:
    """The batch system that this process runs in: its name, its number for the job, and this host; None outside."""
    for name, variable in SCHEDULERS.items():
        if job := os.environ.get(variable):
            return {"name": name, "job": job, "host": platform.node()}
    return None


def version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


TORCH = ("torch", "torchvision", "torchaudio")
"""Packages of which only some versions fit each other."""
CHECKOUT = Path(__file__).resolve().parents[2]


def install_again(build: str = "") -> str:
    """The command that brings versions of torch that fit each other, of another build where one is named.

    In a checkout the lock says which; elsewhere the bounds that our own package declares.
    """
    if (CHECKOUT / "scripts/setup.py").is_file():
        return f"make setup{f' TORCH={build}' if build else ''}"
    return f"pip install --force-reinstall {_declared(TORCH)}"


def compile_again() -> str:
    """The command that compiles llama.cpp with no instructions but those that most CPUs have."""
    portable = "CMAKE_ARGS=-DGGML_NATIVE=OFF"
    if (CHECKOUT / "scripts/setup.py").is_file():
        return f"{portable} make setup"
    return f"{portable} pip install --force-reinstall --no-cache-dir {_declared(['llama-cpp-python'])}"


def _declared(packages: Sequence[str]) -> str:
    """Packages within the bounds that our own package declares, as arguments of pip."""
    try:
        declared = metadata.requires("llamafactory-orchestrator") or []
    except metadata.PackageNotFoundError:
        declared = []
    names = {text.rstrip(" ").split("<")[0].split(">")[0].split("=")[0]: text for text in declared}
    return " ".join(f"'{names.get(name, name)}'" for name in packages)


@functools.cache
def gpus() -> list[dict[str, Any]]:
    """Name, memory in MiB and driver of each NVIDIA GPU; empty where there is none.

    The memory is 0 for a GPU that has none of its own and shares the CPU's: nvidia-smi tells no size then.
    """
    cells = _nvidia_smi("name,memory.total,driver_version")
    return [
        {"name": name, "memory_mib": int(memory) if memory.isdigit() else 0, "driver": driver}
        for name, memory, driver in cells
    ]


def visible_gpus() -> list[str]:
    """The names of the NVIDIA GPUs that may be used here."""
    return visible(len(gpus()), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(count: int, setting: str | None) -> list[str]:
    """The names of the GPUs that may be used: those of CUDA_VISIBLE_DEVICES, else all."""
    if setting is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in setting.split(",") if name.strip() not in ("", "-1")] if count else []


def gpu_memory() -> list[tuple[float, float]]:
    """Memory in use and in all, in GiB, of each NVIDIA GPU that tells it."""
    cells = _nvidia_smi("memory.used,memory.total")
    return [(int(used) / 1024, int(total) / 1024) for used, total in cells if used.isdigit() and total.isdigit()]


def capabilities() -> list[tuple[int, ...]]:
    """The CUDA compute capability of each NVIDIA GPU whose driver tells it."""
    cells = [cell for (cell,) in _nvidia_smi("compute_cap")]
    return [tuple(map(int, cell.split("."))) for cell in cells if cell.replace(".", "").isdigit()]


def _nvidia_smi(fields: str) -> list[list[str]]:
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    if not _found(query[0], os.environ.get("PATH")):
        return []
    try:
        lines = process.output(query, timeout=10).splitlines()
    except (OSError, process.Failed):
        return []
    return [[cell.strip() for cell in line.split(",")] for line in lines]


@functools.cache
def _found(program: str, path: str | None) -> bool:
    """Whether there is such a program; that is asked before each training, of folder after folder."""
    return shutil.which(program, path=path) is not None


def free_memory() -> int:
    """Bytes that a training could take now: of the fullest GPU, or of main memory, cut by the cgroup's limit."""
    if left := [total - used for used, total in gpu_memory()]:
        return int(min(left) * 2**30)
    return free_main_memory()


def free_main_memory() -> int:
    """Bytes of main memory that are free, cut by the cgroup's limit."""
    import psutil

    return min([int(psutil.virtual_memory().available), *cpu.memory_left()])


@functools.cache
def git_state(project: Path) -> dict[str, Any] | None:
    """Commit and whether anything is uncommitted, or None outside a repository."""
    if shutil.which("git") is None:
        return None
    try:
        commit = process.output(["git", "-C", str(project), "rev-parse", "HEAD"]).strip()
        dirty = bool(
            process.output(["git", "-C", str(project), "status", "--porcelain", "--untracked-files=no"]).strip()
        )
    except (OSError, process.Failed):
        return None
    return {"commit": commit, "dirty": dirty}
