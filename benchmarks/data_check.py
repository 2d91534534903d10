"""How long a million rows take to check, and how much memory: `python benchmarks/data_check.py [ROWS]`.

The rows are alpaca JSONL of about 500 bytes each, half English, half Chinese, from the words of the shipped data sets,
with planted exact and near copies. Prints one JSON object: rows, megabytes, seconds, peak_gib, findings (kind → rows).
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.data.checks import check_data
from orchestrator.data.reading import load, read

ROOT = Path(__file__).parent.parent
LABELS = ("World", "Politics", "Business", "Technology", "Sports", "Entertainment")
HELD_OUT = 1000


def sentences(random_: random.Random, vocabulary: list[str], joiner: str, length: int) -> str:
    """Words drawn with a Zipf-like skew until the text is that long."""
    words, size = [], 0
    while size < length:
        word = vocabulary[int(len(vocabulary) * random_.random() ** 2)]
        words.append(word)
        size += len(word) + len(joiner)
    return joiner.join(words)


def rows(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows without end in sight: every 50th repeats an earlier one, every 100th nearly."""
    random_ = random.Random(seed)
    english = [w for c in load(ROOT / "datasets/news/train.json").conversations for w in c.prompt.split()]
    chinese = [
        c.prompt[i : i + 2] for c in load(ROOT / "datasets/news-zh/train.json").conversations for i in range(5, 15)
    ]
    recent: list[str] = []
    for number in range(count):
        zh = number % 2
        text = sentences(random_, chinese if zh else english, "" if zh else " ", 130 if zh else 380)
        if recent and number % 50 == 0:
            text = random_.choice(recent)
        elif recent and number % 100 == 1:
            text = random_.choice(recent)[5:] + "!"
        recent = [*recent[-99:], text]
        yield {"instruction": text, "input": "", "output": random_.choice(LABELS)}


def write(path: Path, count: int, seed: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows(count, seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train, held_out = Path(folder, "train.jsonl"), Path(folder, "eval.jsonl")
        write(train, count, seed=1)
        write(held_out, HELD_OUT, seed=2)
        size = train.stat().st_size
        start = time.perf_counter()
        findings = check_data(read(train), read(held_out), labels_task=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {"rows": count, "megabytes": round(size / 1e6), "seconds": round(seconds, 1), "peak_gib": round(peak, 2)}
    found = [f"{finding.kind}: {finding.message}" for finding in findings]
    print(json.dumps({**result, "findings": found}, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
