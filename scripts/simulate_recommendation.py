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

from orchestrator.evaluation.gate import Candidate, choose
from orchestrator.evaluation.noninferiority import Loss, loss

SIZES = (270, 145, 112, 105, 93, 88)
"""Megabytes of the builtin model's f16, q8_0, q5_k_m, q4_k_m, q3_k_m and q2_k."""
LIMIT = 3.0
Bound = Callable[[int, int, int, int], Loss]
"""Rows, rows that the reference answers rightly, rows lost, rows won → what may be lost."""


@dataclass(frozen=True)
class Job:
    """A drawn truth."""

    rows: int
    right: float
    lost: Sequence[float]
    """Of each file, the share of rows that it loses, the largest file first."""
    won: Sequence[float]

    @property
    def losses(self) -> Sequence[float]:
        """What each file truly loses, in points."""
        return [100 * (lost - won) for lost, won in zip(self.lost, self.won, strict=True)]


def ordinary(rng: np.random.Generator, rows: int) -> Job:
    """Files that lose from nothing up to three times what is allowed, the smaller the more."""
    worst = rng.uniform(0, 3 * LIMIT) / 100
    lost = worst * np.sort(rng.uniform(0, 1, len(SIZES))) ** 2
    return Job(rows, rng.uniform(0.5, 0.99), lost + (noise := rng.uniform(0, 0.01) * np.arange(len(SIZES)) / 5), noise)


def at_the_limit(rng: np.random.Generator, rows: int) -> Job:
    """The worst case: f16 loses nothing, and every other file a tenth of a point more than is allowed."""
    beyond = np.array([0.0, *[(LIMIT + 0.1) / 100] * (len(SIZES) - 1)])
    noise = np.where(beyond > 0, rng.uniform(0, 0.01), 0.0)
    return Job(rows, rng.uniform(0.5, 0.99), beyond + noise, noise)


def half_beyond(rng: np.random.Generator, rows: int) -> Job:
    """f16, q8_0 and q5 lose nothing or next to nothing, the three smaller ones half a point more than is allowed."""
    beyond = np.array([0.0, 0.0, 0.001, *[(LIMIT + 0.5) / 100] * 3])
    noise = np.where(beyond > 0.01, rng.uniform(0, 0.01), 0.0)
    return Job(rows, rng.uniform(0.5, 0.99), beyond + noise, noise)


def seen(job: Job, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Of each file, how many of the rows it lost and won. Half of what decides a row is shared by all files."""
    shared, counts = rng.standard_normal((2, job.rows)), []
    right = rng.uniform(size=job.rows) < job.right
    for lost, won in zip(job.lost, job.won, strict=True):
        own = (shared + rng.standard_normal((2, job.rows))) / np.sqrt(2)
        below = norm.cdf(own)
        counts.append((int((right & (below[0] < lost / job.right)).sum()), _count(~right, below[1], won, job.right)))
    return counts


def _count(wrong: np.ndarray, below: np.ndarray, won: float, right: float) -> int:
    return int((wrong & (below < won / (1 - right))).sum())


@cache
def ours(rows: int, right: int, lost: int, won: int) -> Loss:
    """The bound that the tool takes."""
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
    cross = both * neither - lost * won
    cross = max(cross - rows / 2, 0.0) if cross > 0 else float(cross)
    phi = cross / np.sqrt(product) if product else 0.0
    low, high = first - wilson(first)[0], wilson(second)[1] - second
    bound = first - second - np.sqrt(low**2 - 2 * phi * low * high + high**2)
    return Loss(100 * (second - first), -100 * bound, LIMIT, rows, None)


def smallest_shown(candidates: Sequence[Candidate]) -> Candidate:
    """The rule that comes to mind first: the smallest file that is shown to keep the limit, wherever it stands."""
    shown = [one for one in candidates if one.loss.shown]
    return min(shown, key=lambda one: one.bytes) if shown else candidates[0]


def smallest_not_worse(candidates: Sequence[Candidate]) -> Candidate:
    """The rule of before: the smallest file whose loss cannot be told from zero by McNemar's exact test at 5 %."""
    return min((one for one in candidates if one.loss.limit), key=lambda one: one.bytes)


def errs(job: Job, rng: np.random.Generator, bound: Bound, rule: Callable[..., Candidate | None]) -> tuple[bool, bool]:
    """Whether what is recommended truly loses more than is allowed, and whether it was shown not to."""
    right = round(job.right * job.rows)
    candidates = [
        Candidate(str(at), size, bound(job.rows, right, min(lost, right), min(won, job.rows - right)), size**-1.0)
        for at, (size, (lost, won)) in enumerate(zip(SIZES, seen(job, rng), strict=True))
    ]
    chosen = rule(candidates)
    assert chosen
    return job.losses[int(chosen.artifact)] > LIMIT, chosen.loss.shown


def main() -> None:
    """Print a line for each kind of job, number of rows, bound and rule."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    ways = {"ours": (ours, choose), "ours, smallest shown": (ours, smallest_shown), "Newcombe": (newcombe, choose)}
    print("| jobs | rows |" + "".join(f" {name} |" for name in ways) + " shown by ours |")
    print("|---|---|" + "---|" * (len(ways) + 1))
    for kind in (ordinary, at_the_limit, half_beyond):
        for rows in (60, 100, 200, 400, 1000):
            cells, shares = [], []
            for bound, rule in ways.values():
                rng = np.random.default_rng(given.seed)
                found = [errs(kind(rng, rows), rng, bound, rule) for _ in range(given.jobs)]
                wrong, shown = (sum(column) / given.jobs for column in zip(*found, strict=True))
                cells.append(f"{100 * wrong:.1f} %")
                shares.append(f"{100 * shown:.0f} %")
            print(f"| {kind.__name__.replace('_', ' ')} | {rows} | {' | '.join(cells)} | {shares[0]} |", flush=True)


if __name__ == "__main__":
    main()
