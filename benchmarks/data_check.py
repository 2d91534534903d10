"""How long a million rows take to check, and how much memory.

The rows are alpaca JSONL of about 500 bytes each, half English, half Chinese, from the words of the shipped data sets,
with planted exact and near copies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import ORCHESTRATOR, ROOT, Bench, at_most, run
from orchestrator.data.reading import load

ROWS, HELD_OUT = 1_000_000, 1000
SECONDS, MEMORY = 120, 1536
LABELS = ("World", "Politics", "Business", "Technology", "Sports", "Entertainment")
CHARACTERS = {"en": 430, "zh": 145}
"""Of a row's prompt; both make about 500 bytes with the JSON around them."""


def data_check(bench: Bench) -> None:
    """`data check` of a million rows against a thousand held-out ones."""
    train, held_out = bench.work / "million.jsonl", bench.work / "thousand.jsonl"
    write(train, ROWS, seed=1)
    write(held_out, HELD_OUT, seed=2)
    argv = [ORCHESTRATOR, "data", "check", str(train), "--eval", str(held_out), "--json"]
    measured = run(argv, codes=(2,))  # the planted contradictions are errors
    what = f"`data check` of {ROWS:,} rows, {train.stat().st_size / 1e6:.0f} MB"
    bench.add(at_most("data-time", what, SECONDS, "s", [measured.seconds]))
    bench.add(at_most("data-memory", what, MEMORY, "MiB", [measured.tree_mib]))
    train.unlink()


def write(path: Path, count: int, seed: int) -> None:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows(count, seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Every 50th row repeats one of the last hundred, every 100th nearly does."""
    random_ = random.Random(seed)
    words = vocabularies()
    recent: list[str] = []
    for number in range(count):
        language = ("en", "zh")[number % 2]
        text = sentence(random_, words[language], " " if language == "en" else "", CHARACTERS[language])
        if recent and number % 50 == 0:
            text = random_.choice(recent)
        elif recent and number % 100 == 1:
            text = random_.choice(recent)[5:] + "!"
        recent = [*recent[-99:], text]
        yield {"instruction": text, "input": "", "output": random_.choice(LABELS)}


def vocabularies() -> dict[str, list[str]]:
    """The words of the shipped sets, pairs of characters in Chinese."""
    english, chinese = (load(ROOT / "datasets" / name / "train.json").conversations for name in ("news", "news-zh"))
    return {
        "en": [word for row in english for word in row.prompt.split()],
        "zh": [row.prompt[at : at + 2] for row in chinese for at in range(5, 15)],
    }


def sentence(random_: random.Random, vocabulary: list[str], joiner: str, length: int) -> str:
    """Words, some of them far more often than others, until the text is that long."""
    words, size = [], 0
    while size < length:
        word = vocabulary[int(len(vocabulary) * random_.random() ** 2)]
        words.append(word)
        size += len(word) + len(joiner)
    return joiner.join(words)
