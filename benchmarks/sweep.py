"""A sweep of eight trials against the plain loop over the same eight configurations."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chain import fresh
from benchmarks.harness import LLAMAFACTORY, ORCHESTRATOR, Bench, Measured, ratio, run
from benchmarks.work import CHAIN, by_hand_folder, newest, settings

RATES = (1e-4, 2e-4, 3e-4, 5e-4)
RATIOS = (8, 16)
SPACE = (
    f"sweep.parameters={{learning_rate: {list(RATES)}, loraplus_lr_ratio: {list(RATIOS)}}}",
    "sweep.method=grid",
    "evaluate.baseline=false",
)


def sweep(bench: Bench) -> None:
    """Row 6."""
    ours, bare = [], []
    for number in range(bench.repeats):
        runs_dir = fresh(bench.work / f"sweep-{number}")
        ours.append(run([ORCHESTRATOR, "sweep", *settings(CHAIN, runs_dir, *SPACE)]).seconds)
        folder = by_hand_folder(bench.work, CHAIN, newest(runs_dir))
        bare.append(sum(one.seconds for one in loop(folder)))
    bench.add(ratio("sweep", "8 trials over the plain loop", 0.55, ours, bare))


def loop(folder: Path) -> list[Measured]:
    """Train and predict for every point, one call after the other."""
    done = []
    for rate in RATES:
        for lora_ratio in RATIOS:
            more = (f"learning_rate={rate}", f"loraplus_lr_ratio={lora_ratio}", "overwrite_output_dir=true")
            fresh(folder / "train")
            fresh(folder / "evaluation/generated-tuned")
            done.append(run([LLAMAFACTORY, "train", "configs/train.yaml", *more], folder))
            done.append(run([LLAMAFACTORY, "train", "configs/predict-tuned.yaml"], folder))
    return done
