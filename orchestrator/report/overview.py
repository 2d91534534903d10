"""What a run is, in a handful of facts, and when each of its stages ran."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from orchestrator.lib import layout
from orchestrator.lib.files import from_yaml
from orchestrator.lib.secrecy import without_folders

Json = dict[str, Any]
LONGEST = 1 << 20
"""Bytes of a text file that a page shows."""


def head(folder: Path, record: Json) -> list[tuple[str, str]]:
    """Name and value of what one asks of a run first; what is not known of it is left out."""
    trained = settings(folder)
    facts = {
        "Base model": without_folders(str((record.get("lineage", {}).get("base_model") or {}).get("name", ""))),
        "Learning rate": _number(trained.get("learning_rate")),
        "Epochs": _number(trained.get("num_train_epochs")),
        "Rows": _rows(folder),
        "Device": device(record.get("environment", {})),
        "Peak memory": peak(record["stages"].get("train", {}).get("peak_memory") or {}),
        "Time": duration(sum(entry.get("seconds") or 0 for entry in record["stages"].values())),
    }
    return [(name, text) for name, text in facts.items() if text]


def settings(folder: Path) -> Json:
    """The training's arguments as they were rendered; empty where there are none, or what is there is no YAML."""
    import yaml

    try:
        found = from_yaml(text_of(folder / layout.config("train")))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def device(environment: Json) -> str:
    """`2 × NVIDIA H100`, or the machine's kind where there is no GPU; '' where nobody wrote it down."""
    names = [str(gpu.get("name")) for gpu in environment.get("gpu") or ()]
    if names:
        return f"{len(names)} × {names[0]}" if len(names) > 1 else names[0]
    return f"CPU ({environment['system']})" if environment.get("system") else ""


def peak(memory: Mapping[str, Any]) -> str:
    """The most memory that training held: main memory, and that of the GPU where there is one."""
    named = (("", memory.get("main")), (" on the GPU", memory.get("gpu")))
    return ", ".join(f"{decimal(int(size))}{where}" for where, size in named if size)


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s` or `12 s`; '' for none."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s" if seconds else ""


def timeline(record: Json) -> list[Json]:
    """The stages in the order in which they began: name, status, seconds, and begin and length in percent of the whole.

    Stages that were taken over from another run did not run in this one, and have no bar.
    """
    bars = list(_bars(record))
    if not bars:
        return []
    start = min(bar["began"] for bar in bars)
    whole = max(max(bar["began"] + bar["seconds"] for bar in bars) - start, 0.001)
    placed = [{**bar, "x": 100 * (bar["began"] - start) / whole, "width": 100 * bar["seconds"] / whole} for bar in bars]
    return sorted(placed, key=lambda bar: bar["began"])


def _bars(record: Json) -> Iterator[Json]:
    for name, entry in record["stages"].items():
        if "reused_from" in entry:
            continue
        try:
            began = datetime.fromisoformat(str(entry["started_at"])).timestamp()
            seconds = float(entry.get("seconds") or 0)
        except (KeyError, ValueError):
            continue
        yield {"name": name, "status": entry["status"], "began": began, "seconds": seconds}


def is_plain(file: Path) -> bool:
    """Whether there is a file, and no link, which may lead anywhere, nor a pipe, which may never end."""
    return not file.is_symlink() and file.is_file()


def text_of(file: Path) -> str:
    """The text of a plain file, as far as a page shows it; '' for none."""
    if not is_plain(file):
        return ""
    with file.open("rb") as opened:
        return opened.read(LONGEST).decode("utf-8", "replace")


def _rows(folder: Path) -> str:
    counts = {"to learn": count_rows(folder / layout.TRAIN_ROWS), "held out": count_rows(folder / layout.EVAL_ROWS)}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def count_rows(file: Path) -> int:
    """The rows of a data file of a run, which has one on each line between its brackets; 0 without a file."""
    if not is_plain(file):
        return 0
    status = file.stat()
    return _counted(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _counted(file: Path, modified: int, size: int) -> int:
    with file.open("rb") as opened:
        return sum(line.startswith(b"{") for line in opened)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
