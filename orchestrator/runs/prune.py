"""Remove runs: which ones, how many bytes that frees, and never one that is in use."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.lib.errors import InputError
from orchestrator.runs import query, store
from orchestrator.runs.catalogue import DAMAGED
from orchestrator.runs.locks import is_locked, locked

TRASH = ".removing-"


def superfluous(runs_dir: Path, keep: int, name: str | None = None, metric: str | None = None) -> list[Path]:
    """The folders of all runs but the `keep` best of each name; one that goes on, or is damaged, is kept."""
    kept: Counter[str] = Counter()
    found = []
    for line in query.ranked(runs_dir, name, metric):
        if line["status"] == DAMAGED:
            continue
        kept[line["name"]] += 1
        if kept[line["name"]] > keep and line["status"] != "running":
            found.append(runs_dir / line["id"])
    return found


def freed(folders: Iterable[Path]) -> int:
    """The bytes that disappear with these folders; a file that is also linked from elsewhere frees nothing."""
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    files = Counter((found.st_dev, found.st_ino, found.st_nlink, found.st_size) for found in map(os.stat, paths))
    return sum(size for (_, _, links, size), seen in files.items() if links <= seen)


def in_use(folders: Sequence[Path]) -> list[Path]:
    """Those that a process is working on, be it as a trial of a sweep that goes on."""
    return [folder for folder in folders if any(map(is_locked, (folder, *_sweep_of(folder))))]


def _sweep_of(folder: Path) -> list[Path]:
    try:
        sweep = (store.load(folder).record.get("sweep") or {}).get("id")
    except InputError:  # nobody knows, and nothing of this version works on a record that it cannot read
        return []
    return [folder.parent / sweep] if sweep and (folder.parent / sweep).is_dir() else []


def remove(folder: Path) -> None:
    """Remove a run at once: a crash leaves no half of it behind. Raises InputError when it is in use."""
    trash = folder.with_name(f"{TRASH}{folder.name}")
    with locked(folder):
        folder.rename(trash)
    for left in folder.parent.glob(f"{TRASH}*"):
        shutil.rmtree(left)
