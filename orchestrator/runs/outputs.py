"""The files of a run, as its record lists them: path, size and sha256."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache, sync


def damage(folder: Path, entry: Mapping[str, Any], hashes: HashCache | None = None) -> str:
    """What is wrong with a recorded file of a run: place, size and, with `hashes`, contents; '' for nothing.

    A record may be somebody else's: what it says to lie outside its run, or is a link, is not the run's to give away.
    """
    path, within = folder / entry["path"], PurePath(entry["path"])
    if within.is_absolute() or ".." in within.parts:
        return "lies outside the run"
    try:
        status = path.lstat()
    except OSError:
        return "is gone"
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if status.st_size != entry["bytes"]:
        return f"has {status.st_size:,} bytes instead of {entry['bytes']:,}"
    return "" if hashes is None or hashes.matches(path, entry["sha256"]) else "has other contents"


def refuse_links(folder: Path) -> None:
    """Raise InputError when a link in a run's folder leads out of it: what a stage writes would land there."""
    home = os.path.realpath(folder) + os.sep
    for path in folder.rglob("*"):
        if path.is_symlink() and not os.path.realpath(path).startswith(home):
            what = f"run {folder.name} has a link that leads out of it: {path.relative_to(folder)}"
            raise InputError(what, "Remove the link, or the run.")


def finished(folder: Path, paths: Collection[str], hashes: HashCache) -> list[dict[str, Any]]:
    """Path, size and sha256 of files of a run, each made sure to be on the disk first."""
    for name in paths:
        sync(folder / name)
    return entries(folder, paths, hashes)


def entries(folder: Path, paths: Iterable[str], hashes: HashCache) -> list[dict[str, Any]]:
    """Path, size and sha256 of files of a run, in alphabetical order."""
    found = ((name, folder / name) for name in sorted(paths))
    return [{"path": name, "bytes": path.stat().st_size, "sha256": hashes.sha256(path)} for name, path in found]
