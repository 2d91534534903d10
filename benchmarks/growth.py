"""How our own cost grows: seconds at 10, 100, 1,000 and 10,000 runs and rows, and the slope on a log-log scale."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import mean

from benchmarks.chain import fresh
from benchmarks.harness import ORCHESTRATOR, ROOT, Bench, Row, at_most, median, run
from benchmarks.records import many_runs
from benchmarks.sweep_cost import milliseconds_per_trial
from benchmarks.work import NEWS_SMALL, settings

SIZES = (10, 100, 1_000, 10_000)
TRIAL_SIZES = 3
"""Ten thousand trials take hours even where the stages take no time."""
LINEAR = 1.05
"""A slope that is still called linear: the clock is not exact."""


def growth(bench: Bench) -> None:
    """One line for each thing that can become many."""
    curve(bench, "runs", "`runs list`", listed)
    curve(bench, "planned", "`plan` beside so many runs", planned)
    curve(bench, "rows", "`data check` of so many rows", checked)
    trials(bench)


def trials(bench: Bench) -> None:
    """As many trials at each size, in sweeps of that size: all meet the machine's faster and slower moments alike."""
    sizes = SIZES[:TRIAL_SIZES]
    turns = [
        [mean(own(count) for _ in range(min(10, sizes[-1] // count))) for count in sizes] for _ in range(bench.repeats)
    ]
    seconds = [count * median(list(one)) / 1000 for count, one in zip(sizes, zip(*turns, strict=True), strict=True)]
    bench.add(line("trials", "a sweep's own time for so many trials", seconds))
    bench.add(
        at_most("growth-trial", f"our own time a trial, of {sizes[-1]:,}", 50, "ms", [turn[-1] for turn in turns])
    )


def own(count: int) -> float:
    """Our milliseconds a trial, of so many."""
    return milliseconds_per_trial(count)[0]


def curve(bench: Bench, name: str, what: str, command: Callable[[Bench, int], list[str]]) -> None:
    """Measure a command at each size, the first time left out, which may build an index."""
    seconds = []
    for count in SIZES:
        argv = command(bench, count)
        run(argv, codes=(0, 2))
        seconds.append(median([run(argv, codes=(0, 2)).seconds for _ in range(bench.repeats)]))
    bench.add(line(name, what, seconds))


def line(name: str, what: str, seconds: list[float]) -> Row:
    """A line of the table from seconds at each size."""
    slope = max(math.log10(after / before) for before, after in pairwise(seconds))
    note = ", ".join(f"{count:,}: {one:.2f} s" for count, one in zip(SIZES, seconds, strict=False))
    return Row(
        f"growth-{name}", f"{what}, steepest log-log slope", slope, f"≤ {LINEAR}", slope <= LINEAR, seconds, (), note
    )


def listed(bench: Bench, count: int) -> list[str]:
    """All runs are looked at, fifty shown."""
    return [ORCHESTRATOR, "runs", "list", "--runs-dir", str(many_runs(bench, count))]


def planned(bench: Bench, count: int) -> list[str]:
    """A plan whose run must be looked for among others."""
    return [ORCHESTRATOR, "plan", *settings(bench, NEWS_SMALL, many_runs(bench, count))]


def checked(bench: Bench, count: int) -> list[str]:
    """Different rows, as many as wanted, of the words of the shipped ones."""
    shipped = (ROOT / "datasets/news/train.json").read_text(encoding="utf-8")
    words = [word for word in shipped.split() if word.isalpha()]
    random = Random(count)
    project = fresh(bench.work / f"rows-{count}")
    project.mkdir()
    for name, rows in (("train", count), ("eval", 10)):
        lines = [
            {"instruction": " ".join(random.choices(words, k=14)), "output": random.choice(("Sports", "World"))}
            for _ in range(rows)
        ]
        (project / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    spec = "name: rows\ndata: {train: train.jsonl, eval: eval.jsonl}\n"
    (project / "spec.yaml").write_text(spec, encoding="utf-8")
    return [ORCHESTRATOR, "data", "check", str(project / "spec.yaml")]
