"""What every miniature is trained on and asked: both shipped sets, some rows with a system text or earlier turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from orchestrator.lib.files import read_json, write_json

SETS = ("news", "news-zh")
TRAIN, EVAL = 24, 12
"""Rows taken of each set, before every fourth is joined to the one after it."""
SYSTEMS = ("You are a news category assistant.", "你是新闻分类助手，只回答类别。")
Row = dict[str, Any]


def write_rows(folder: Path) -> None:
    """train.json and eval.json."""
    for part, count in (("train", TRAIN), ("eval", EVAL)):
        sets = [read_json(ROOT / f"datasets/{name}/{part}.json")[:count] for name in SETS]
        write_json(
            folder / f"{part}.json", [row for pair in zip(*map(varied, sets, SYSTEMS), strict=True) for row in pair]
        )


def varied(rows: list[Row], system: str) -> list[Row]:
    """The rows, the second and third of every four joined to a conversation, every other row with a system text."""
    turns = [row["conversations"] for row in rows]
    joined = [part for four in zip(*[iter(turns)] * 4, strict=True) for part in (four[0], four[1] + four[2], four[3])]
    return [
        {"conversations": turns, **({"system": system} if number % 2 else {})} for number, turns in enumerate(joined)
    ]
