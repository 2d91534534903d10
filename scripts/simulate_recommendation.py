"""How often is the recommended file truly worse than the gate allows? 1,000 simulated jobs a line, with a fixed seed.

A job has some held-out rows, a tuned model that is right on a share of them, and six GGUFs of falling size. Each file
answers some rows otherwise; of those some are lost and some are won, so its true loss is known. Rows are fragile to
different degrees, so a smaller file mostly changes the rows that a larger one changes too. What the tool then sees,
and recommends, is compared with the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import norm

from orchestrator.evaluation.intervals import Array
from orchestrator.evaluation.noninferiority import Loss, loss
from orchestrator.evaluation.recommend import Candidate, choose

SIZES = (270, 145, 112, 105, 93, 88)
"""Megabytes of the builtin model's f16, q8_0, q5_k_m, q4_k_m, q3_k_m and q2_k."""
LIMIT = 3.0
Bound = Callable[[int, int, int, int], Loss]
"""Rows, rows that the reference answers rightly, rows lost, rows won → what may be lost."""
Rule = Callable[[Sequence[Candidate]], Candidate | None]


@dataclass(frozen=True)
class Job:
    """A drawn truth; each file's shares, the largest file first."""

    rows: int
    right: float
    """The share of rows that the tuned model answers rightly."""
    lost: Array
    """The shares of rows that the files lose of these, and `won` those that they win beyond."""
    won: Array

    @property
    def losses(self) -> Array:
        """What each file truly loses, in points."""
        return 100 * (self.lost - self.won)


def ordinary(rng: np.random.Generator) -> Array:
    """Files that lose from nothing up to three times what is allowed, the smaller the more."""
    return np.array(rng.uniform(0, 3 * LIMIT) * np.sort(rng.uniform(0, 1, len(SIZES))) ** 2)


def at_the_limit(rng: np.random.Generator) -> Array:
    """The worst case: f16 loses nothing, and every other file a tenth of a point more than is allowed."""
    return np.array([0.0, *[LIMIT + 0.1] * (len(SIZES) - 1)])


def half_beyond(rng: np.random.Generator) -> Array:
    """f16, q8_0 and q5 lose next to nothing, the three smaller ones half a point more than is allowed."""
    return np.array([0.0, 0.0, 0.1, *[LIMIT + 0.5] * 3])


KINDS = {kind.__name__: kind for kind in (ordinary, at_the_limit, half_beyond)}


def draw(kind: Callable[[np.random.Generator], Array], rows: int, rng: np.random.Generator) -> Job:
    """A job whose files lose so many points, with up to one point both lost and won by chance."""
    points = kind(rng)
    noise = np.where(points > 0, rng.uniform(0, 1), 0.0)
    return Job(rows, rng.uniform(0.5, 0.98), (points + noise) / 100, noise / 100)


def seen(job: Job, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Of each file, how many rows the tuned model answers rightly, and how many of the rows the file lost and won.

    Half of what decides whether a row is changed is shared by all files.
    """
    right = rng.uniform(size=job.rows) < job.right
    shared = rng.standard_normal((2, job.rows))
    counts = []
    for lost, won in zip(job.lost, job.won, strict=True):
        fragile = norm.cdf((shared + rng.standard_normal((2, job.rows))) / np.sqrt(2))
        losing = right & (fragile[0] < lost / job.right)
        winning = ~right & (fragile[1] < won / (1 - job.right))
        counts.append((int(right.sum()), int(losing.sum()), int(winning.sum())))
    return counts


def ours(rows: int, right: int, lost: int, won: int) -> Loss:
    """The bound that the tool takes."""
    return _ours(rows, lost, won)


@cache
def _ours(rows: int, lost: int, won: int) -> Loss:
    differences = np.array([-100.0] * lost + [100.0] * won + [0.0] * (rows - lost - won))
    return loss(differences, LIMIT, needs=False)


@cache
def newcombe(rows: int, right: int, lost: int, won: int) -> Loss:
    """The bad end of Newcombe's 90 % interval, method 10: Statistics in Medicine 17 (1998), 2635–2650."""
    z = norm.ppf(0.95)
    both, neither = right - lost, rows - right - won
    first, second = (right - lost + won) / rows, right / rows

    def wilson(p: float) -> tuple[float, float]:
        middle, spread = p + z**2 / (2 * rows), z * np.sqrt(p * (1 - p) / rows + z**2 / (4 * rows**2))
        return (middle - spread) / (1 + z**2 / rows), (middle + spread) / (1 + z**2 / rows)

    product = float((both + lost) * (won + neither) * (both + won) * (lost + neither))
    cross = float(both * neither - lost * won)
    cross = max(cross - rows / 2, 0.0) if cross > 0 else cross
    phi = cross / np.sqrt(product) if product else 0.0
    low, high = first - wilson(first)[0], wilson(second)[1] - second
    bound = first - second - np.sqrt(low**2 - 2 * phi * low * high + high**2)
    return Loss(100 * (second - first), -100 * bound, LIMIT, rows, None)


def smallest_shown(candidates: Sequence[Candidate]) -> Candidate:
    """The rule that comes to mind first: the smallest file that is shown to keep the limit, wherever it stands."""
    shown = [one for one in candidates if one.loss.shown]
    return min(shown, key=lambda one: one.bytes) if shown else candidates[0]


WAYS: dict[str, tuple[Bound, Rule]] = {
    "the tool's": (ours, choose),
    "smallest shown": (ours, smallest_shown),
    "Newcombe's bound": (newcombe, choose),
}


def errs(job: Job, found: Sequence[tuple[int, int, int]], bound: Bound, rule: Rule) -> tuple[bool, bool]:
    """Whether what is recommended truly loses more than is allowed, and whether it was shown not to."""
    candidates = [
        Candidate(str(at), size, bound(job.rows, *counts), 1 / size)
        for at, (size, counts) in enumerate(zip(SIZES, found, strict=True))
    ]
    chosen = rule(candidates)
    assert chosen
    return bool(job.losses[int(chosen.artifact)] > LIMIT), chosen.loss.shown


def main() -> None:
    """Print a line for each kind of job and number of rows: how often each way errs, and the tool's shows something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=[60, 100, 400])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    print(f"| job | rows | {' | '.join(WAYS)} | shown |")
    print("|---|---|" + "---|" * (len(WAYS) + 1))
    for kind in (KINDS[name] for name in given.kinds):
        for rows in given.rows:
            rng = np.random.default_rng(given.seed)
            wrong, shown = dict.fromkeys(WAYS, 0), 0
            for job in (draw(kind, rows, rng) for _ in range(given.jobs)):
                found = seen(job, rng)
                results = {way: errs(job, found, *how) for way, how in WAYS.items()}
                wrong = {way: wrong[way] + results[way][0] for way in WAYS}
                shown += results["the tool's"][1]
            cells = [f"{100 * count / given.jobs:.1f} %" for count in (*wrong.values(), shown)]
            print(f"| {kind.__name__.replace('_', ' ')} | {rows} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
