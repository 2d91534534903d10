"""The whole chain against the same work by hand: one tool call after the other, with the same configurations."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.harness import LLAMAFACTORY, ORCHESTRATOR, Bench, Measured, Row, at_most, median, ratio, run
from benchmarks.work import (
    CHAIN,
    HEADLINES,
    SHIPPED,
    TRAINING,
    UNJUDGED,
    Job,
    by_hand_folder,
    newest,
    settings,
    stage_seconds,
)
from orchestrator.lib.files import read_json
from orchestrator.models import llamacpp

MADE = ("convert", "quantise")


EQUAL = 1e-5
"""How far the losses of equal trainings may be apart."""
FASTER = 1.8
"""Times, at equal losses."""


@dataclass(frozen=True, slots=True)
class Trainings:
    """The same training in both ways."""

    ours: float
    """Rows a second."""
    bare: float
    apart: float
    """The largest difference of a loss."""
    losses: int
    """How many were logged."""

    @classmethod
    def of(cls, ours: Path, bare: Path) -> Trainings:
        """From the folders of a run and of the same by hand."""
        pairs = list(zip(_losses(ours), _losses(bare), strict=True))
        return cls(_speed(ours), _speed(bare), max(abs(one - other) for one, other in pairs), len(pairs))


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn: our run of a job, and what each command took by hand."""

    ours: Measured
    folder: Path
    by_hand: dict[str, Measured]
    trained: Trainings

    @property
    def by_hand_seconds(self) -> float:
        return sum(one.seconds for one in self.by_hand.values())


def chain(bench: Bench) -> None:
    """Rows 5, 8 and 9."""
    pairs = [turn(bench, CHAIN, number) for number in range(bench.repeats)]
    ours, bare = [pair.ours.seconds for pair in pairs], [pair.by_hand_seconds for pair in pairs]
    what = "48 rows, predict 100 twice, merge, 3 GGUF, all asked, over by hand"
    bench.add(ratio("chain", what, 0.50, ours, bare))
    made = [_sum(stage_seconds(pair.folder)) for pair in pairs]
    by_hand = [_sum({name: one.seconds for name, one in pair.by_hand.items()}) for pair in pairs]
    bench.add(ratio("gguf", "conversion and quantisations over converter and quantiser", 0.7, made, by_hand))
    memory(bench, pairs)


def headlines(bench: Bench) -> None:
    """Row 11. By hand nothing is verified; ours asks both GGUF files."""
    pairs = [turn(bench, HEADLINES, number) for number in range(bench.repeats)]
    ours, bare = [pair.ours.seconds for pair in pairs], [pair.by_hand_seconds for pair in pairs]
    bench.add(
        ratio("headlines", "300 rows x 3 epochs to two GGUF, verified, over by hand unverified", 0.55, ours, bare)
    )
    bench.add(faster("headlines", "its training alone over LLaMA-Factory's defaults", [pair.trained for pair in pairs]))


def judge(bench: Bench) -> None:
    """What is known of the files beyond their answers, and what it takes."""
    judged: list[float] = []
    asked: list[float] = []
    for number in range(bench.repeats):
        for sets, seconds in (((), judged), (UNJUDGED, asked)):
            runs_dir = fresh(bench.work / f"judge-{number}-{len(sets)}")
            seconds.append(run([ORCHESTRATOR, "run", *settings(bench, SHIPPED, runs_dir, *sets)], codes=(0, 5)).seconds)
    what = "the shipped job over the same without divergence, matrix, confidence and general prompts"
    bench.add(ratio("judge", what, 1.15, judged, asked))


def train(bench: Bench) -> None:
    """Row 4: the same YAML, so nothing is added to it. Ours includes the preparation of the data."""
    ours, bare = [], []
    for number in range(bench.repeats):
        runs_dir = fresh(bench.work / f"train-{number}")
        ours.append(run([ORCHESTRATOR, "train", *settings(bench, CHAIN, runs_dir, "speed=off")]))
        folder = by_hand_folder(bench.work, CHAIN, newest(runs_dir))
        bare.append(run([LLAMAFACTORY, "train", "configs/train.yaml"], folder))
    seconds = ([one.seconds for one in ours], [one.seconds for one in bare])
    bench.add(ratio("train", "`train`, data checks included, over bare llamafactory-cli", 1.01, *seconds))
    bench.add(at_most("train", "our own process beside it", 80, "MiB", [one.own_mib for one in ours]))


def memory(bench: Bench, pairs: list[Pair]) -> None:
    """Row 9: peaks of the merge and the conversion, each a process of its own in both ways."""
    bare = [max(pair.by_hand[name].tree_mib for name in ("merge", "convert")) for pair in pairs]
    more = ("--force", "merge", "--force", "convert", "--set", "execution=cli")
    ours = []
    for pair in pairs:
        argv = [ORCHESTRATOR, "export", *settings(bench, CHAIN, pair.folder.parent), *more]
        ours.append(run(argv, codes=(0, 5)).tree_mib)
    bench.add(ratio("memory", "peak of merge and conversion over the bare tools", 0.8, ours, bare))


def throughput(bench: Bench) -> None:
    """Row 10: trainings alone, in turns. Every step's loss is compared."""
    turns = []
    for number in range(bench.repeats):
        runs_dir = fresh(bench.work / f"throughput-{number}")
        run([ORCHESTRATOR, "train", *settings(bench, TRAINING, runs_dir)])
        hand = by_hand_folder(bench.work, TRAINING, newest(runs_dir))
        run([LLAMAFACTORY, "train", "configs/train.yaml"], hand)
        turns.append(Trainings.of(newest(runs_dir), hand))
    bench.add(faster("throughput", "training throughput over LLaMA-Factory's defaults", turns))


def faster(name: str, what: str, turns: Sequence[Trainings]) -> Row:
    """How much faster ours trained; losses that differ miss the target, too."""
    value, apart = median([turn.ours for turn in turns]) / median([turn.bare for turn in turns]), turns[0].apart
    reached = value >= FASTER and all(turn.apart <= EQUAL for turn in turns)
    note = f"{turns[0].losses} losses differ by {apart:.0e} at most"
    return Row(name, what, value, f"≥ {FASTER}", reached, [t.ours for t in turns], [t.bare for t in turns], note)


def turn(bench: Bench, job: Job, number: int) -> Pair:
    """Our run first, since its data and configurations are what is then used by hand."""
    runs_dir = fresh(bench.work / f"{job.name}-{number}")
    command = [ORCHESTRATOR, "run", *settings(bench, job, runs_dir)]
    ours = run(command, codes=(0, 5))
    folder = newest(runs_dir)
    hand = by_hand_folder(bench.work, job, folder)
    return Pair(ours, folder, by_hand(job, hand), Trainings.of(folder, hand))


def by_hand(job: Job, folder: Path) -> dict[str, Measured]:
    """Name → what each command took."""
    python, converter = sys.executable, str((llamacpp.checkout(None) or Path()) / llamacpp.CONVERTER)
    tool = [python, "-m", "benchmarks.by_hand"]
    done = {"train": run([LLAMAFACTORY, "train", "configs/train.yaml"], folder)}
    for artifact in ("base", "tuned") if job.baseline else ("tuned",):
        done[f"predict-{artifact}"] = run([LLAMAFACTORY, "train", f"configs/predict-{artifact}.yaml"], folder)
    done["merge"] = run([LLAMAFACTORY, "export", "configs/merge.yaml"], folder)
    f16 = str(folder / "export/f16.gguf")
    merged = yaml.safe_load((folder / "configs/merge.yaml").read_text(encoding="utf-8"))["export_dir"]
    done["convert"] = run([python, converter, merged, "--outfile", f16, "--outtype", "f16"], folder)
    for kind in job.quantisations:
        done[f"quantise-{kind}"] = run([*tool, "quantise", f16, str(folder / f"export/{kind}.gguf"), kind])
    if job.baseline:
        for kind in ("f16", *job.quantisations):
            files = (folder / f"export/{kind}.gguf", folder / "data/prompts.jsonl", folder / f"evaluation/{kind}.jsonl")
            done[f"ask-{kind}"] = run([*tool, "ask", *map(str, files), "16"])
    return done


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _sum(seconds: dict[str, float]) -> float:
    return sum(value for name, value in seconds.items() if name.startswith(MADE))


def _speed(folder: Path) -> float:
    return float(read_json(folder / "train/all_results.json")["train_samples_per_second"])


def _losses(folder: Path) -> list[float]:
    history = read_json(folder / "train/trainer_state.json")["log_history"]
    if not (losses := [entry["loss"] for entry in history if "loss" in entry]):
        raise ValueError(f"{folder} logged no loss, so there is nothing to compare")
    return losses
