"""A sweep of eight trials against the plain loop over the same eight configurations."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.chain import fresh
from benchmarks.harness import LLAMAFACTORY, ORCHESTRATOR, Bench, ratio, run
from benchmarks.work import CHAIN, by_hand_folder, settings
from orchestrator.lib import layout

SPACE = (
    "sweep.parameters={learning_rate: [5.0e-4, 1.0e-3], num_train_epochs: [1, 2], lora_rank: [8, 16]}",
    "sweep.method=grid",
    "sweep.parallel=auto",
    "evaluate.baseline=false",
)
ANSWERS = Path(layout.generated("tuned"), "generated_predictions.jsonl")


def sweep(bench: Bench) -> None:
    """Row 6."""
    ours, bare, same = [], [], []
    for number in range(bench.repeats):
        runs_dir = fresh(bench.work / f"sweep-{number}")
        ours.append(run([ORCHESTRATOR, "sweep", *settings(bench, CHAIN, runs_dir, *SPACE)]).seconds)
        trials = sorted(file.parent for file in runs_dir.glob("*/run.json"))
        turns = [by_hand(bench, trial) for trial in trials]
        bare.append(sum(seconds for seconds, _ in turns))
        same += [share for _, share in turns]
    note = f"{sum(same) / len(same):.1%} of the answers are the same, in the worst trial {min(same):.0%}"
    bench.add(ratio("sweep", f"{len(trials)} trials over the plain loop", 0.40, ours, bare, note))


def by_hand(bench: Bench, trial: Path) -> tuple[float, float]:
    """Train and predict with a trial's own configurations: the seconds, and the share of equal answers."""
    folder = by_hand_folder(bench.work, CHAIN, trial)
    done = [run([LLAMAFACTORY, "train", f"configs/{stage}.yaml"], folder) for stage in ("train", "predict-tuned")]
    pairs = list(zip(answers(folder), answers(trial), strict=True))
    return sum(one.seconds for one in done), sum(theirs == ours for theirs, ours in pairs) / len(pairs)


def answers(folder: Path) -> list[str]:
    """What LLaMA-Factory answered, in the order of the rows."""
    return [json.loads(line)["predict"] for line in (folder / ANSWERS).read_text(encoding="utf-8").splitlines()]
