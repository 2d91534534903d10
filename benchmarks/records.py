"""Many runs and large sweeps: what listing and reporting cost."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.chain import fresh
from benchmarks.harness import MIB, ORCHESTRATOR, Bench, at_most, run
from benchmarks.work import NEWS_SMALL, finished, newest
from orchestrator.files import read_json

RUNS, TRIALS = 10_000, 500
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def records(bench: Bench) -> None:
    """Row 12. The first listing after new runs came reads them; the later ones read the index."""
    runs_dir = many_runs(bench, RUNS)
    listed = [ORCHESTRATOR, "runs", "list", "--runs-dir", str(runs_dir)]
    first = run(listed).seconds
    again = [run(listed).seconds for _ in range(3 * bench.repeats)]
    bench.add(at_most("records", f"`runs list` of {RUNS:,} runs", 1, "s", again, f"the first time {first:.1f} s"))
    reported = [ORCHESTRATOR, "report", str(many_trials(bench, TRIALS)), "--runs-dir", str(runs_dir)]
    seconds = [run(reported).seconds for _ in range(bench.repeats)]
    bench.add(at_most("records", f"report of a sweep of {TRIALS} trials", 3, "s", seconds))
    (page,) = many_trials(bench, TRIALS, again=False).glob("*.html")
    bench.add(at_most("records", "its page", 3, "MB", [page.stat().st_size / MIB]))


def many_runs(bench: Bench, count: int) -> Path:
    """A runs folder full of copies of a real record; most runs have a name of their own."""
    record = read_json(newest(finished(bench.work, NEWS_SMALL)) / "run.json")
    runs_dir = fresh(bench.work / f"many-{count}")
    for number in range(count):
        write_run(runs_dir, record, number, name=f"news-{number % 50}")
    return runs_dir


def write_run(runs_dir: Path, record: dict[str, Any], number: int, **values: Any) -> str:
    """A run's folder with nothing but its record; returns the run's id."""
    moment = FIRST + timedelta(minutes=number)
    identifier = f"{moment:%Y%m%dT%H%M%SZ}-{values.get('name', record['name'])}-{secrets.token_hex(3)}"
    made = {**record, "id": identifier, "created_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}", **values}
    (runs_dir / identifier).mkdir(parents=True)
    (runs_dir / identifier / "run.json").write_text(json.dumps(made), encoding="utf-8")
    return identifier


def many_trials(bench: Bench, count: int, again: bool = True) -> Path:
    """A sweep's folder with its trials beside it, as `orchestrator sweep` leaves them."""
    runs_dir = bench.work / f"many-{RUNS}"
    if not again:
        return next(runs_dir.glob("*-sweep-*"))
    record = read_json(newest(finished(bench.work, NEWS_SMALL)) / "run.json")
    sweep_id = f"{FIRST:%Y%m%dT%H%M%SZ}-news-sweep-{secrets.token_hex(3)}"
    trials = []
    for number in range(count):
        parameters = {"learning_rate": 1e-5 * (1 + number), "num_train_epochs": number % 4 + 1}
        mark = {"id": sweep_id, "trial": number, "parameters": parameters}
        run_id = write_run(runs_dir, record, RUNS + number, sweep=mark)
        trials.append({"trial": number, "run": run_id, "parameters": parameters, "value": 50 + number % 37,
                       "status": "completed"})  # fmt: skip
    ranking = sorted(trials, key=lambda trial: -trial["value"])
    page = {"schema": 1, "id": sweep_id, "name": "news", "kind": "sweep", "metric": "accuracy", "trials": trials,
            "created_at": record["created_at"], "ranking": ranking}  # fmt: skip
    folder = runs_dir / sweep_id
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps(page), encoding="utf-8")
    return folder
