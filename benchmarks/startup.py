"""What one waits for at the prompt: help, a misspelt key, a plan, a run with nothing to do."""

from __future__ import annotations

import sys

from benchmarks.harness import LLAMAFACTORY, ORCHESTRATOR, Bench, alternate, at_most, ratio, run
from benchmarks.work import NEWS_SMALL, finished, settings

TIMES = 5
"""Short commands are repeated more often."""


def startup(bench: Bench) -> None:
    """Row 1."""
    click = [sys.executable, "-c", "import click"]
    ours, bare = alternate(lambda: run([ORCHESTRATOR, "--help"]), lambda: run(click), TIMES * bench.repeats)
    seconds = ([one.seconds for one in ours], [one.seconds for one in bare])
    bench.add(ratio("startup", "`--help` over `python -c 'import click'`", 3, *seconds))


def typo(bench: Bench) -> None:
    """Row 2."""
    wrong = [ORCHESTRATOR, "check", "--set", "train.learning_rat=1.0e-4"]
    file = bench.work / "typo.yaml"
    file.write_text("learning_rat: 1.0e-4\n", encoding="utf-8")
    ours = [run(wrong, codes=(2,)).seconds for _ in range(TIMES * bench.repeats)]
    bare = [run([LLAMAFACTORY, "train", str(file)], codes=(1,)).seconds for _ in range(bench.repeats)]
    bench.add(at_most("typo", "a misspelt training key is reported", 0.5, "s", ours))
    bench.add(ratio("typo", "the same over llamafactory-cli's traceback", 0.2, ours, bare))


def plan(bench: Bench) -> None:
    """Row 3: on a finished run with ten artifacts: base, tuned and eight GGUF files."""
    project = finished(bench, NEWS_SMALL)
    planned = [ORCHESTRATOR, "plan", *settings(bench, NEWS_SMALL, project)]
    again = [ORCHESTRATOR, "run", *settings(bench, NEWS_SMALL, project)]
    for what, limit, argv in (
        ("`plan` of a finished run with 10 artifacts", 0.6, planned),
        ("`run` with nothing left to do", 1.5, again),
    ):
        seconds = [run(argv, codes=(0, 5)).seconds for _ in range(TIMES * bench.repeats)]
        bench.add(at_most("plan", what, limit, "s", seconds))
