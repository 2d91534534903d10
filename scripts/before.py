"""What must hold before set-up downloads anything: a Python, a compiler, room, folders. Any Python from 3.8 on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import trouble
from trouble import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHONS = ("3.11", "3.12", "3.13")
"""What the lock was resolved for."""
ROOM = 10 * 2**30
"""Bytes that a first set-up takes: 7 GiB of packages, the rest downloads and the built-in model."""
BUILDS = re.compile(r"auto|cpu|cu\d{3}|rocm[\d.]+|xpu")
"""Builds of torch that PyTorch's own index has; uv knows where it is."""


def interpreter(wanted: str) -> str:
    """A Python that the lock is for: the one asked for, else this one, else the newest on PATH."""
    given = wanted or sys.executable
    if version_of(given) in PYTHONS:
        return given
    others = [found for found in map(shutil.which, (f"python{version}" for version in reversed(PYTHONS))) if found]
    found = next((other for other in others if version_of(other) in PYTHONS), None)
    if wanted or found is None:
        raise Problem(
            f"{given} is Python {version_of(given) or 'of no version'}; {', '.join(PYTHONS)} are supported",
            f"Try: make setup PYTHON={found or 'python' + PYTHONS[-1]}",
        )
    return found


def version_of(python: str) -> str:
    """`3.11`, or '' when there is no such program, or it does not work."""
    try:
        ask = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        return subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()
    except OSError:
        return ""


def require_compiler() -> None:
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, names)):
        raise Problem(
            f"there is no C++ compiler, which llama.cpp needs: no {', '.join(names)} on PATH",
            "Install one: apt install g++, dnf install gcc-c++, or on macOS xcode-select --install",
        )


def require_build(torch: str) -> None:
    if torch and not BUILDS.fullmatch(torch):
        raise Problem(f"there is no build {torch!r} of torch", "Try: make setup TORCH=auto, or cpu, or cu126")


def require_parts(parts: Sequence[str], folder: Path) -> None:
    known = sorted(path.stem for path in folder.glob("*.txt"))
    if unknown := [part for part in parts if part not in known]:
        raise Problem(f"the lock has no part {unknown[0]!r}", f"Choose from: {', '.join(known)}.")


def require_room(seen: Path, folder: Path) -> None:
    """Not where this lock was installed before, since the packages are in the cache then."""
    if not seen.exists() and shutil.disk_usage(str(folder)).free < ROOM:
        raise Problem(trouble.full(folder), f"Make room. {trouble.AGAIN}")


def require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(folder)).close()
    except OSError as error:
        raise Problem(
            f"the cache {folder} cannot be written: {error.strerror}",
            "Name a folder that can be: export XDG_CACHE_HOME=/a/folder/with/10/GB",
        ) from None
