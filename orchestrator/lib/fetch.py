"""Pinned downloads from the package index that pip is set up for, checked by hash, unpacked without surprises."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib import process
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import sha256, sync

Progress = Callable[[int, int], None]
"""Called with bytes so far and bytes in all."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One file of one release in the package index."""

    requirement: str
    filename: str
    sha256: str
    bytes: int
    source: bool = False
    """The source archive instead of a wheel."""


def download(pin: Pin, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """The pinned file in `folder`, fetched only if it is not there yet.

    Raises MissingError when the index does not have it or sends something else.
    """
    target = folder / pin.filename
    if target.is_file() and sha256(target) == pin.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        arrived = _pip_download(pin, Path(temporary), progress)
        if (found := sha256(arrived)) != pin.sha256:
            raise MissingError(
                f"{pin.filename} arrived with sha256 {found[:12]}…, expected {pin.sha256[:12]}…",
                "Check the package index or mirror that pip uses (`pip config list`).",
            )
        sync(arrived)
        return arrived.replace(target)


def _pip_download(pin: Pin, temporary: Path, progress: Progress) -> Path:
    target = temporary / "files"
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--dest", str(target)]
    argv += ["--no-binary", ":all:"] if pin.source else ["--only-binary", ":all:"]
    log = temporary / "pip.log"
    # pip writes into TMPDIR while it downloads, which is the only progress it shows to another program.
    command = process.Command([*argv, pin.requirement], temporary, log, {"TMPDIR": str(temporary)})
    code = process.wait(process.start(command), lambda: progress(_size(temporary, pin.filename), pin.bytes))
    if code != 0 or not (target / pin.filename).is_file():
        raise MissingError(
            f"pip could not download {pin.requirement}: {_last_line(log)}",
            "Check the network and the package index that pip uses (`pip config list`), then try again.",
        )
    progress(pin.bytes, pin.bytes)
    return target / pin.filename


def _size(folder: Path, filename: str) -> int:
    sizes = [0]
    for root, _, names in os.walk(folder):  # unlike rglob, it shrugs off folders that pip removes meanwhile
        if filename in names:
            with contextlib.suppress(OSError):
                sizes.append((Path(root) / filename).stat().st_size)
    return max(sizes)


def _last_line(log: Path) -> str:
    lines = process.said(log)
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no output"])[-1].removeprefix("ERROR: ")


def unpack_source(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the wanted members of a source archive below `folder`, their common top folder left out.

    Python's `data` filter refuses absolute names, `..`, links out of the folder and device files (PEP 706).
    """
    import tarfile

    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/")
            if name and wanted(name):
                try:
                    tar.extract(member.replace(name=name, deep=False), folder, filter="data")
                except tarfile.FilterError as error:
                    raise InputError(f"{archive.name} holds an unsafe member: {error}") from error


def unpack_member(wheel: Path, member: str, target: Path) -> None:
    """Write one member of a wheel to `target`."""
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
