"""How far each GGUF type lies from f16 on a finished run's held-out rows, with and without an importance matrix.

    python scripts/compare_types.py RUN [TYPE …]

Each file reads what it reads in `diverge`; the files are made in a temporary folder. Figures are told of all that is
read, and of the answers alone. Intervals are paired: what is drawn again and again is rows, the same ones for both
files (10,000 draws). `ratio` is the matrix's divergence over the plain one's, `further` how much further a type lies
than the one before it.
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
from orchestrator.evaluation.reading import own_places, tokens_read
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.models.gguf import GgufModel
from orchestrator.models.quantiser import quantise
from orchestrator.stages.asked import prompt_text

TYPES = ("q8_0", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
DRAWS = 10_000
MOST_TOKENS = 16
"""Of an answer to other rows than the run's."""
NAMES = ("plain", "matrix")
FIGURES = ("read", "answers")
Given = list[dict[str, Any]]
"""Rows of {prompt, answer, own}."""
Rows = dict[str, Array]
"""Figure → each row's mean divergence, nats a token."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("types", nargs="*", default=list(TYPES))
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="GGUFs to compare besides")
    parser.add_argument(
        "--rows", type=Path, help="alpaca rows to ask instead of the run's, as `data import` writes them"
    )
    options = parser.parse_args()
    source = next((options.run / "export").glob("*-f16.gguf"))
    matrix = next((options.run / "export").glob("*.imatrix"))
    given = _answered(source, options) if options.rows else _given(options.run)
    reference = _reference(source, given)
    plain: dict[str, Rows] = {}
    spared: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "one.gguf"
        for kind in options.types:
            for found, importance in ((plain, None), (spared, matrix)):
                quantise(source, target, kind, importance)
                found[kind] = _rows(target, given, reference)
    others = {file.name: _rows(file, given, reference) for file in options.files}
    for figure in FIGURES:
        print(f"{figure}:")
        _compare(*({kind: rows[figure] for kind, rows in of.items()} for of in (plain, spared, others)))


def _compare(plain: Rows, spared: Rows, files: Rows) -> None:
    for kind in plain:
        ratio = _ratio(spared[kind], plain[kind])
        print(f"  {kind} {_mean(plain[kind])} with matrix {_mean(spared[kind])} ratio {ratio}")
    for nearer, further in pairwise(plain):
        gaps = (_mean(of[further] - of[nearer]) for of in (plain, spared))
        print(f"  {further} further than {nearer}:", *(f"{name} {gap}" for name, gap in zip(NAMES, gaps, strict=True)))
    for name, rows in files.items():
        print(f"  {name} {_mean(rows)}")
        for kind, others in spared.items():
            print(f"    further than {kind} with matrix: {_mean(rows - others)}, ratio {_ratio(rows, others)}")


def _given(run: Path) -> Given:
    """The rows of a run; of one that read no prompts, with the places that are read today."""
    rows = read_json_lines(run / layout.GIVEN)
    own = own_places([row["prompt"] for row in rows])
    return [{"own": places, **row} for row, places in zip(rows, own, strict=True)]


def _answered(source: Path, options: argparse.Namespace) -> Given:
    """Other rows, with what f16 answers them."""
    served = read_json(options.run / layout.SERVING)
    with GgufModel(source) as model:
        rows = [[{"role": "user", "content": row["instruction"]}] for row in read_json(options.rows)]
        prompts = [model.tokenize(prompt_text(model, row)) for row in rows]
        stops = model.stops(served["stop"])
        said = dict(model.answers(prompts, MOST_TOKENS, stops))
    own = own_places(prompts)
    ends = {number: [*answer, *sorted(stops)[:1]] for number, answer in said.items()}
    return [{"prompt": prompt, "answer": ends[n], "own": own[n]} for n, prompt in enumerate(prompts)]


def _read(file: Path, given: Given, look: Any) -> list[list[Any]]:
    prompts, answers, own = ([row[name] for row in given] for name in ("prompt", "answer", "own"))
    with GgufModel(file) as model:
        return list(model.read_answers(prompts, answers, look, own))


def _reference(source: Path, given: Given) -> Expectations:
    keep = kept(sum(len(row["answer"]) for row in given))
    tokens = [tokens_read(row) for row in given]
    read = _read(source, given, lambda logits, row, number: expectation(logits, tokens[row][number], keep))
    return expectations(place for places in read for place in places)


def _rows(file: Path, given: Given, reference: Expectations) -> Rows:
    tokens = [tokens_read(row) for row in given]
    starts = np.cumsum([0, *map(len, tokens)])

    def look(logits: Any, row: int, number: int) -> float:
        return at_place(reference, starts[row] + number, logits, tokens[row][number])[0]

    read = _read(file, given, look)
    answers = [places[len(row["own"]) :] for row, places in zip(given, read, strict=True)]
    return {figure: np.array([*map(np.mean, of)]) for figure, of in zip(FIGURES, (read, answers), strict=True)}


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
