"""How far each GGUF type lies from f16 on a finished run's held-out rows, with and without an importance matrix.

    python scripts/compare_types.py RUN [TYPE …]

The answers of the tuned model are read by each file, as `diverge` does; the files are made in a temporary folder.
Intervals are paired: what is drawn again and again is rows, the same ones for both files (10,000 draws). `ratio` is the
matrix's divergence over the plain one's, `further` how much further a type lies than the one before it. With
`--prompts` the tokens of the prompts are read, too.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.divergence import Expectations, at_place, expectation, expectations, kept
from orchestrator.evaluation.intervals import Array
from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines
from orchestrator.models.gguf import GgufModel
from orchestrator.models.quantiser import quantise

TYPES = ("q8_0", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
DRAWS = 10_000
NAMES = ("plain", "matrix")
Given = list[tuple[list[int], list[int]]]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("types", nargs="*", default=list(TYPES))
    parser.add_argument("--prompts", action="store_true", help="read the prompts' tokens, too")
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="GGUFs to compare besides")
    options = parser.parse_args()
    source = next((options.run / "export").glob("*-f16.gguf"))
    matrix = next((options.run / "export").glob("*.imatrix"))
    given = _given(options.run, options.prompts)
    reference = _reference(source, given)
    plain: dict[str, Array] = {}
    spared: dict[str, Array] = {}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "one.gguf"
        for kind in options.types:
            for found, importance in ((plain, None), (spared, matrix)):
                quantise(source, target, kind, importance)
                found[kind] = _rows(target, given, reference)
            print(
                kind, _mean(plain[kind]), "with matrix", _mean(spared[kind]), "ratio", _ratio(spared[kind], plain[kind])
            )
    for nearer, further in pairwise(options.types):
        gaps = (_mean(of[further] - of[nearer]) for of in (plain, spared))
        print(f"{further} further than {nearer}:", *(f"{name} {gap}" for name, gap in zip(NAMES, gaps, strict=True)))
    for file in options.files:
        rows = _rows(file, given, reference)
        print(file.name, f"{file.stat().st_size / 1e6:.1f} MB", _mean(rows))
        for kind, others in spared.items():
            print(f"  further than {kind} with matrix: {_mean(rows - others)}, ratio {_ratio(rows, others)}")


def _given(run: Path, prompts: bool) -> Given:
    rows = read_json_lines(run / layout.GIVEN)
    pairs = [(row["prompt"], row["answer"]) for row in rows]
    return [([p[0]], [*p[1:], *a]) if prompts else (p, a) for p, a in pairs]


def _read(file: Path, given: Given, look: Any) -> list[list[Any]]:
    with GgufModel(file) as model:
        return list(model.read_answers([prompt for prompt, _ in given], [answer for _, answer in given], look))


def _reference(source: Path, given: Given) -> Expectations:
    keep = kept(sum(len(answer) for _, answer in given))
    read = _read(source, given, lambda logits, row, place: expectation(logits, given[row][1][place], keep))
    return expectations(place for places in read for place in places)


def _rows(file: Path, given: Given, reference: Expectations) -> Array:
    """Each row's mean divergence, nats a token."""
    starts = np.cumsum([0, *(len(answer) for _, answer in given)])

    def look(logits: Any, row: int, place: int) -> float:
        return at_place(reference, starts[row] + place, logits, given[row][1][place])[0]

    return np.array([np.mean(places) for places in _read(file, given, look)])


def _draws(rows: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, rows, (DRAWS, rows))


def _mean(values: Array) -> str:
    low, high = np.percentile(values[_draws(len(values))].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.5f} ({low:.5f}…{high:.5f})"


def _ratio(above: Array, below: Array) -> str:
    draws = _draws(len(above))
    low, high = np.percentile(above[draws].mean(axis=1) / below[draws].mean(axis=1), [2.5, 97.5])
    return f"{above.mean() / below.mean():.2f} ({low:.2f}…{high:.2f})"


if __name__ == "__main__":
    main()
