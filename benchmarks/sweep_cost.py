"""What the orchestrator itself costs a trial: a sweep over stages that do nothing.

python -m benchmarks.sweep_cost [TRIALS]
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.executors.base import Executor, Job
from orchestrator.lib import process
from orchestrator.lib.step import Step
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import Sweep
from orchestrator.sweep.run import run_sweep
from orchestrator.sweep.trial import TrialFactory
from tests.fake_stages import FakeLaunch

SPEC = """\
name: nothing
data: {{train: {data}/train.json, eval: {data}/eval.json}}
train: {{learning_rate: 1.0e-3}}
"""


class Silence:
    """An audience, and a watcher, who wants to see nothing."""

    def watch(self, *_: object) -> None: ...
    def ended(self, *_: object) -> None: ...
    def starts(self, *_: object) -> None: ...
    def tick(self) -> None: ...
    def ends(self, *_: object) -> None: ...


class Inline:
    """An executor without threads, so that a profile shows everything."""

    capacity = 1

    def submit(self, job: Job) -> Finished:
        try:
            job({}, lambda: None)
        except Exception as error:
            return Finished(error)
        return Finished()


@dataclass(frozen=True)
class Finished:
    """A job that is over."""

    error: BaseException | None = None
    id: None = None

    def done(self) -> bool:
        return True

    def exception(self) -> BaseException | None:
        return self.error

    def cancel(self, reason: BaseException) -> None: ...


class Clocked(FakeLaunch):
    """Starts stages that do nothing but leave their files, and adds up how long they are at that: it is not ours."""

    wall = processor = 0.0

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        child = super().__call__(step, command)
        asked = child.poll

        def poll() -> int | None:
            started, worked = time.perf_counter(), time.thread_time()
            code = asked()
            self.wall += time.perf_counter() - started
            self.processor += time.thread_time() - worked
            return code

        child.poll = poll  # type: ignore[method-assign]
        return child


def grid(trials: int) -> dict[str, list[float]]:
    """Ten values of each of three parameters, or fewer of the last ones."""
    sizes = min(trials, 10), min(trials // 10, 10) or 1, trials // 100 or 1
    assert sizes[0] * sizes[1] * sizes[2] == trials, "10, 100, 300 or 1,000, for example"
    epochs = [1.0 + number for number in range(sizes[1])]
    dropouts = [number / 100 for number in range(sizes[2])]
    rates = [1e-4 * (1 + number) for number in range(sizes[0])]
    return {"learning_rate": rates, "num_train_epochs": epochs, "lora_dropout": dropouts}


def milliseconds_per_trial(trials: int, executor: Executor | None = None) -> tuple[float, float]:
    """Wall and processor time of a whole sweep without that of its stages, its planning and its ranking included, for
    each trial."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(SPEC.format(data=Path("datasets/news").resolve()), encoding="utf-8")
        sweep = Sweep.model_validate_json(json.dumps({"method": "grid", "parameters": grid(trials)}))
        launch = Clocked()
        started, worked = time.perf_counter(), time.process_time()
        page = run_sweep(TrialFactory(load_project(spec), sweep, launch=launch), Silence(), Silence(), executor)
        wall, processor = time.perf_counter() - started - launch.wall, time.process_time() - worked - launch.processor
    assert len(page["ranking"]) == trials
    return 1000 * wall / trials, 1000 * processor / trials


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(milliseconds_per_trial, count, executor=Inline())
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    else:
        wall, processor = milliseconds_per_trial(count)
        print(f"{wall:.1f} ms a trial over {count} trials, {processor:.1f} ms of them on the processor")
