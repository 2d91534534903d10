"""Many runs and large sweeps: what listing and reporting cost."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.chain import fresh
from benchmarks.harness import ORCHESTRATOR, ROOT, Bench, at_most, run
from benchmarks.sweep_cost import Silence
from benchmarks.work import NEWS_SMALL, finished, newest
from orchestrator.lib import layout
from orchestrator.runs import schema
from tests.fake_stages import FakeLaunch

RUNS, TRIALS = 10_000, 500
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def records(bench: Bench) -> None:
    """Row 12. The first listing after new runs came reads them; the later ones read the index."""
    runs_dir = many_runs(bench, RUNS)
    listed = [ORCHESTRATOR, "runs", "list", "--runs-dir", str(runs_dir)]
    first = run(listed).seconds
    again = [run(listed).seconds for _ in range(3 * bench.repeats)]
    bench.add(at_most("records", f"`runs list` of {RUNS:,} runs", 1, "s", again, f"the first time {first:.1f} s"))
    sweep = sweep_of(bench, TRIALS)
    reported = [ORCHESTRATOR, "report", str(sweep), "--runs-dir", str(sweep.parent)]
    seconds = [run(reported).seconds for _ in range(bench.repeats)]
    bench.add(at_most("records", f"report of a sweep of {TRIALS} trials", 3, "s", seconds))
    size = (sweep / layout.REPORT).stat().st_size
    bench.add(at_most("records", "its page", 3, "MB", [size / 1e6]))


def many_runs(bench: Bench, count: int) -> Path:
    """A runs folder full of copies of a real record; most runs have a name of their own."""
    record = schema.read(newest(finished(bench, NEWS_SMALL)) / layout.RECORD)
    runs_dir = fresh(bench.work / f"many-{count}")
    for number in range(count):
        write_run(runs_dir, record, number, name=f"news-{number % 50}")
    return runs_dir


def write_run(runs_dir: Path, record: dict[str, Any], number: int, **values: Any) -> None:
    """A run's folder with nothing but its record."""
    moment = FIRST + timedelta(minutes=number)
    identifier = f"{moment:%Y%m%dT%H%M%SZ}-{values.get('name', record['name'])}-{secrets.token_hex(3)}"
    made = {**record, "id": identifier, "created_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}", **values}
    (runs_dir / identifier).mkdir(parents=True)
    (runs_dir / identifier / layout.RECORD).write_text(schema.to_text(made), encoding="utf-8")


def sweep_of(bench: Bench, count: int) -> Path:
    """The folder of a sweep whose trials are real but for their stages, which leave what they promise at once."""
    from orchestrator.spec.load import load_project
    from orchestrator.spec.sections import Sweep
    from orchestrator.sweep.run import run_sweep
    from orchestrator.sweep.trial import TrialFactory

    runs_dir = fresh(bench.work / f"trials-{count}")
    rates = [1e-5 * (1 + number / count) for number in range(count)]
    sweep = Sweep.model_validate_json(json.dumps({"method": "grid", "parameters": {"learning_rate": rates}}))
    project = load_project(ROOT / layout.SPEC, runs_dir=runs_dir)
    page = run_sweep(TrialFactory(project, sweep, launch=FakeLaunch()), Silence(), Silence())
    return runs_dir / str(page["id"])
