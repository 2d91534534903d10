"""The files of a run, as its record lists them: path, size and sha256."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache, sync


def is_whole(path: Path, output: Mapping[str, Any], hashes: HashCache | None = None) -> bool:
    """Whether a file has the size that a record says and, with `hashes`, the contents.

    A record may be somebody else's: what it says to lie outside its run, or is a link, is not the run's to give away.
    """
    within = PurePath(output["path"])
    if within.is_absolute() or ".." in within.parts:
        return False
    try:
        status = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size != output["bytes"]:
        return False
    return hashes is None or hashes.matches(path, output["sha256"])


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
