"""How many planted wrong labels does `data check --with` name? The table of docs/evaluation.md, "Wrong labels".

    python scripts/wrong_labels.py [FILE …]

In each draw one row in fifteen (20 of 300) gets another label at random; told is how many of these stand among the
tenth of the rows (30 of 300) that is doubted most. The draws are numbered, and the number is the seed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from orchestrator.data.doubt import SHARE, doubted
from orchestrator.data.reading import load
from orchestrator.data.views import ngrams, states
from orchestrator.models import builtin

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [ROOT / f"datasets/{name}.json" for name in ("news/train", "news/eval", "news-zh/train", "news-zh/eval")]
WRONG = 1 / 15


def planted(labels: Sequence[str], seed: int) -> tuple[list[str], set[int]]:
    """The labels, some of them replaced by another one, and which rows these are."""
    generator, known = random.Random(seed), sorted(set(labels))
    wrong = generator.sample(range(len(labels)), round(WRONG * len(labels)))
    changed = list(labels)
    for row in wrong:
        changed[row] = generator.choice([label for label in known if label != labels[row]])
    return changed, set(wrong)


def found(file: Path, base: Path, seeds: Sequence[int]) -> tuple[int, list[int]]:
    """How many rows there are, and how many planted labels each draw finds."""
    rows = load(file).conversations
    texts, labels = [row.prompt for row in rows], [row.answer.strip() for row in rows]
    views = [states(base, texts), ngrams(texts)]
    counts = []
    for seed in seeds:
        changed, wrong = planted(labels, seed)
        counts.append(len({one.index for one in doubted(views, changed)} & wrong))
    return len(rows), counts


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=SHIPPED)
    parser.add_argument("--base", type=Path, help="A folder [the builtin model].")
    parser.add_argument("--first-draw", type=int, default=100)
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    base = given.base or builtin.fetch("smollm2-135m-instruct", lambda done, total: None)
    print("| rows | planted | among the first | found, on average | in each draw |\n|---|---|---|---|---|")
    for file in given.files:
        rows, counts = found(file, base, range(given.first_draw, given.first_draw + given.draws))
        name = f"{file.parent.name}/{file.stem}, {rows} rows"
        cells = (name, round(WRONG * rows), round(SHARE * rows), f"{sum(counts) / len(counts):.1f}", counts)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
