"""Finished runs without a training: files as the chain leaves them, and figures by the real scoring worker."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.lib.files import write_json, write_text
from orchestrator.runs import store
from orchestrator.runs.results import metrics
from orchestrator.runs.store import Run
from orchestrator.stages import score

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></style>{{ 7 * 7 }} 体育"
)
"""What a model, or a data file, might say."""
LABELS = ("Sports", "Politik", "体育")


def make_run(
    runs_dir: Path,
    name: str = "news",
    *,
    wrong: Sequence[int] = (0, 7),
    learning_rate: float = 5e-4,
    answer: str = "Sports",
    **values: Any,
) -> Run:
    """A completed run whose tuned model is wrong in some of 30 rows, where it says `answer`."""
    run = store.create(runs_dir, name, **values)
    write_text(run.folder / "spec.yaml", f"name: {name}\ntrain:\n  learning_rate: {learning_rate}\n")
    write_text(run.folder / "configs/train.yaml", f"learning_rate: {learning_rate}\nnum_train_epochs: 3\n")
    write_log(run.folder, 12)
    write_rows(run.folder, "base", ["?"] * 30)
    write_rows(run.folder, "tuned", [answer if row in wrong else truth(row) for row in range(30)])
    write_rows(run.folder, "gguf-f16", [answer if row in (*wrong, 3) else truth(row) for row in range(30)])
    score_rows(run.folder)
    stages = {stage: stage_entry(stage) for stage in ("prepare", "train", "score", "judge")}
    run.set(status="completed", finished_at=store.now(), stages=stages, metrics=metrics(run.folder))
    return run


def truth(row: int) -> str:
    return LABELS[row % len(LABELS)]


def stage_entry(stage: str) -> dict[str, Any]:
    output = {"path": f"{stage}.bin", "bytes": 3, "sha256": "0" * 64}
    argv = ["python", "-m", stage, "a b"]
    head = {"status": "completed", "fingerprint": f"print of {stage}", "argv": argv, "started_at": store.now()}
    return head | {"seconds": 1.5, "exit_code": 0, "outputs": [output]}


def write_log(folder: Path, steps: int) -> None:
    entries = [
        {"current_steps": 5 * step, "total_steps": 60, "loss": 2.0 / step, "lr": 5e-4 / step}
        for step in range(1, steps + 1)
    ]
    entries.append({"current_steps": 5 * steps, "total_steps": 60, "eval_loss": 0.4})
    write_text(folder / "train/trainer_log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))


def write_rows(folder: Path, artifact: str, answers: Sequence[str]) -> None:
    rows = [
        {"id": str(row + 1), "prompt": f"headline {row + 1}", "label": truth(row), "prediction": answer}
        for row, answer in enumerate(answers)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / f"evaluation/{artifact}.jsonl", text)


def score_rows(folder: Path) -> None:
    """What the judge stage leaves."""
    artifacts = ("base", "tuned", "gguf-f16")
    config: dict[str, Any] = {
        "task": "classification",
        "labels": list(LABELS),
        "artifacts": {artifact: f"evaluation/{artifact}.jsonl" for artifact in artifacts},
        "summary": "evaluation/summary-judge.json",
        "gate": {"min_agreement": 0.99},
    }
    write_json(folder / "configs/judge.json", config)
    with contextlib.chdir(folder):
        score.Score(**config).run()


def make_sweep(runs_dir: Path, trials: int, word: str = "cosine") -> Path:
    """A sweep's folder whose trials have loss curves; every tenth was pruned."""
    folder = runs_dir / "20260102T030405Z-news-sweep-abcdef"
    entries = [_trial(runs_dir, number, word) for number in range(trials)]
    measured = sorted((entry for entry in entries if entry["value"]), key=lambda entry: -entry["value"]["value"])
    ranking = [_place(rank, entry) for rank, entry in enumerate(measured, 1)]
    parameters = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "lr_scheduler_type": ["linear", word]}
    sweep = {"id": folder.name, "name": "news", "status": "completed", "metric": "accuracy", "parameters": parameters}
    write_json(folder / "sweep.json", {**sweep, "total": trials, "trials": entries, "ranking": ranking})
    return folder


def _trial(runs_dir: Path, number: int, word: str) -> dict[str, Any]:
    run = f"20260102T03{number:04d}Z-news-{number:06x}"
    write_log(runs_dir / run, 100)
    pruned = number % 10 == 9
    value = 40 + 50 * ((number * 37) % 101) / 101
    return {
        "number": number,
        "run": run,
        "status": "pruned" if pruned else "completed",
        "parameters": {
            "learning_rate": 1e-5 * 10 ** (3 * number / 500),
            "lr_scheduler_type": ("linear", word)[number % 2],
        },
        "seed": 42,
        "value": None if pruned else {"value": value, "low": value - 8, "high": min(100.0, value + 8)},
        "reason": f"behind the others {word}" if pruned else None,
        "seconds": 12.5,
    }


def _place(rank: int, entry: dict[str, Any]) -> dict[str, Any]:
    head = {"rank": rank, "parameters": entry["parameters"], "trials": [entry["number"]], "best_trial": entry["number"]}
    return head | {"value": entry["value"], "spread": None, "tied": rank <= 3, "sentence": ""}
