"""Whole sweeps over stages that take no time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.sweep import require_success
from orchestrator.lib import layout, process
from orchestrator.lib.errors import GateError, InputError, Interrupted, OrchestratorError, StageError
from orchestrator.lib.files import read_json
from orchestrator.lib.step import Step
from orchestrator.runs import store
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import Sweep
from orchestrator.sweep import records, sweeper, winner
from orchestrator.sweep.display import conclusions
from orchestrator.sweep.run import run_sweep, trials_ahead
from orchestrator.sweep.trial import TrialFactory
from tests.conftest import rows
from tests.fake_stages import FakeLaunch

Json = dict[str, Any]


class SweepReporter:
    """Sees everything, shows nothing, and may act on it."""

    def __init__(self, on_watch: Callable[[list[Any]], None] = lambda running: None) -> None:
        self.entries: list[Json] = []
        self._on_watch = on_watch

    def watch(self, running: list[Any], done: int, total: int) -> None:
        self._on_watch(running)

    def ended(self, entry: Json, total: int) -> None:
        self.entries.append(entry)

    def starts(self, *_: object) -> None: ...
    def tick(self) -> None: ...
    def ends(self, *_: object) -> None: ...


def sweep(**values: Any) -> Sweep:
    return Sweep.model_validate_json(json.dumps(values))


def test_a_dry_run_counts_trials(project: Path) -> None:
    search = sweep(parameters={"learning_rate": [1e-4, 1e-3]}, seeds=2)
    lines = trials_ahead(TrialFactory(load_project(project / "spec.yaml"), search))
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[0].split()[1:] == lines[1].split()[1:] != lines[2].split()[1:]


RATES = sweep(parameters={"learning_rate": [1e-4, 1e-3, 1e-2]})


def carry_out(project: Path, search: Sweep, launch: FakeLaunch, sweep_reporter: SweepReporter | None = None) -> Json:
    factory = TrialFactory(load_project(project / "spec.yaml"), search, launch=launch)
    reporter = sweep_reporter or SweepReporter()
    return run_sweep(factory, reporter, reporter)


def stages(launch: FakeLaunch, name: str) -> list[float]:
    return [rate for stage, rate in launch.started if stage == name]


def test_a_grid_becomes_runs_and_a_ranking(project: Path) -> None:
    launch = FakeLaunch()
    page = carry_out(project, RATES, launch)
    first, *equal = [place["parameters"]["learning_rate"] for place in page["ranking"]]
    assert (first, sorted(equal)) == (1e-3, [1e-4, 1e-2])  # of equal ones the cheaper comes first
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 3
    assert stages(launch, "train") == [1e-4, 1e-3, 1e-2]
    assert len(stages(launch, "prepare")) == len(stages(launch, "predict-base")) == 1  # the others take them over
    best = records.best_run(project / "runs" / page["id"])
    assert best.record["sweep"] == {"id": page["id"], "trial": 2, "parameters": {"learning_rate": 1e-3}}
    assert best.record["metrics"]["tuned"]["accuracy"]["value"] == 100.0


def test_nothing_is_done_twice(project: Path) -> None:
    launch = FakeLaunch()
    carry_out(project, RATES, launch)
    done = len(launch.started)
    carry_out(project, RATES, launch)
    assert len(launch.started) == done
    page = carry_out(project, sweep(parameters={"learning_rate": [1e-4, 1e-3, 1e-2, 1e-1]}), launch)
    assert stages(launch, "train") == [1e-4, 1e-3, 1e-2, 1e-1]
    assert [trial["reused"] for trial in page["trials"]] == [True, True, True, False]


def test_a_removed_run_is_made_again(project: Path) -> None:
    page = carry_out(project, RATES, FakeLaunch())
    shutil.rmtree(project / "runs" / page["trials"][1]["run"])
    launch = FakeLaunch()
    again = carry_out(project, RATES, launch)
    assert stages(launch, "train") == [1e-3]
    assert again["ranking"][0]["parameters"] == page["ranking"][0]["parameters"]


def test_a_failed_trial_is_recorded_and_tried_again(project: Path) -> None:
    page = carry_out(project, RATES, FakeLaunch(fails=frozenset({1e-3})))
    assert [trial["status"] for trial in page["trials"]] == ["completed", "failed", "completed"]
    assert "CUDA out of memory" in page["trials"][1]["reason"]
    assert len(page["ranking"]) == 2
    launch = FakeLaunch()
    page = carry_out(project, RATES, launch)
    assert stages(launch, "train") == [1e-3]
    assert [trial["number"] for trial in page["trials"]] == [1, 2, 3]
    assert page["ranking"][0]["best_trial"] == 2


def test_what_diverged_is_told_apart_and_not_tried_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import fake_stages

    plain = fake_stages.write_outputs
    lost = {
        1e-4: ("train/trainer_state.json", '{"log_history": [{"grad_norm": NaN, "step": 7}]}'),
        1e-3: ("train/all_results.json", '{"train_loss": NaN}'),  # too short for a log
    }

    def diverging(step: Any, folder: Path) -> None:
        plain(step, folder)
        rate = fake_stages.learning_rate(folder)
        if step.stage == "train" and rate in lost:
            file, text = lost[rate]
            (folder / file).write_text(text)

    monkeypatch.setattr(fake_stages, "write_outputs", diverging)
    page = carry_out(project, RATES, FakeLaunch())
    assert [trial["status"] for trial in page["trials"]] == ["diverged", "diverged", "completed"]
    assert [place["trials"] for place in page["ranking"]] == [[3]]
    assert [trial["reason"] for trial in page["trials"]] == [
        "training diverged: grad_norm became nan at step 7",
        "training diverged: the mean loss over all steps is nan",
        None,
    ]
    assert conclusions(page)[0] == "2 of 3 trials diverged; sweep.json has the reasons"
    again = FakeLaunch()
    assert carry_out(project, RATES, again)["trials"] == page["trials"]
    assert again.started == []


@pytest.mark.parametrize("metric", ["accuracy", "eval_loss"])
def test_a_model_that_always_says_the_same_is_not_ranked(
    project: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    from tests import fake_stages

    plain = fake_stages.write_outputs
    answers = {1e-4: ["体育", "财经"], 1e-3: ["体育", "体育"], 1e-2: ["", ""]}

    def answering(step: Any, folder: Path) -> None:
        plain(step, folder)
        if step.stage == "score":
            given = zip(("体育", "财经"), answers[fake_stages.learning_rate(folder)], strict=True)
            lines = [{"id": label, "prompt": "标题", "label": label, "prediction": answer} for label, answer in given]
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (folder / layout.predictions("tuned")).write_text(text, encoding="utf-8")

    monkeypatch.setattr(fake_stages, "write_outputs", answering)
    search = RATES.model_copy(update={"metric": metric})
    page = carry_out(project, search, FakeLaunch())
    assert [trial["status"] for trial in page["trials"]] == ["completed", "unusable", "unusable"]
    assert [place["trials"] for place in page["ranking"]] == [[1]]
    assert page["trials"][1]["reason"].startswith("it answers '体育' to all 2 rows")
    assert page["trials"][2]["reason"] == "all 2 answers are empty"
    assert page["trials"][1]["value"] is not None
    again = FakeLaunch()
    assert carry_out(project, search, again)["trials"] == page["trials"]
    assert again.started == []


@pytest.mark.parametrize(
    ("statuses", "ranked", "strict", "raised"),
    [
        (["diverged", "diverged"], False, False, StageError),
        (["unusable", "unusable"], False, False, GateError),
        (["unusable", "completed"], True, True, GateError),
        (["unusable", "completed"], True, False, None),
        (["completed", "pruned"], True, True, None),
    ],
)
def test_how_a_sweep_ends(
    statuses: list[str], ranked: bool, strict: bool, raised: type[OrchestratorError] | None
) -> None:
    trials = [{"number": number, "status": status, "reason": "why"} for number, status in enumerate(statuses, 1)]
    page = {"trials": trials, "ranking": [{}] if ranked else []}
    with pytest.raises(raised, match="such as trial 1: why") if raised else nullcontext():
        require_success(page, strict)


def test_seeds_repeat_each_point(project: Path) -> None:
    page = carry_out(project, sweep(parameters={"learning_rate": [1e-4, 1e-3]}, seeds=2), FakeLaunch())
    assert [trial["seed"] for trial in page["trials"]] == [42, 43, 42, 43]
    assert [place["trials"] for place in page["ranking"]] == [[3, 4], [1, 2]]
    assert page["ranking"][0]["spread"] == 0.0


def test_parallel_trials_share_cores_and_what_they_have_in_common(project: Path) -> None:
    launch = FakeLaunch(seconds=0.05)
    page = carry_out(project, RATES.model_copy(update={"parallel": 3}), launch)
    assert len(page["ranking"]) == 3
    assert len(stages(launch, "prepare")) == len(stages(launch, "predict-base")) == 1
    assert {environment["OMP_NUM_THREADS"] for environment in launch.environments} == {
        str(max(1, len(os.sched_getaffinity(0)) // 3))
    }


def test_equal_points_at_the_same_time_are_one_run(project: Path) -> None:
    launch = FakeLaunch(seconds=0.05)
    search = sweep(method="random", parameters={"learning_rate": [1e-3]}, trials=3, parallel=3)
    page = carry_out(project, search, launch)
    assert stages(launch, "train") == [1e-3]
    assert len({trial["run"] for trial in page["trials"]}) == 1


class PatientLaunch(FakeLaunch):
    """Trains until the sweep has seen the whole curve, however slow the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[float] = set()

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        child = super().__call__(step, command)
        rate, poll = self.started[-1][1], child.poll
        if step.stage == "train":
            child.poll = lambda: poll() if child.stopped or rate in self.seen else None  # type: ignore[attr-defined,method-assign]
        return child


def test_a_pruned_trial_is_recorded_with_its_curve(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, steps = PatientLaunch(), (1, 2, 4)

    def learn(running: list[Any]) -> None:
        for one in running:
            rate = one.trial.point["learning_rate"]
            if one.task.run.stage("train") and rate not in launch.seen:
                lines = [{"current_steps": step, "eval_loss": 9.0 if rate == 1e-2 else 1.0 / step} for step in steps]
                log = one.task.run.folder / layout.TRAINED / "trainer_log.jsonl"
                log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            if len(one.curve) == len(steps):
                launch.seen.add(rate)

    monkeypatch.setattr(sweeper, "WATCH_SECONDS", 0.0)
    stopping = {"method": "median", "grace_steps": 2}
    search = sweep(parameters={"learning_rate": [1e-3, 1e-4, 2e-4, 1e-2]}, early_stopping=stopping)
    page = carry_out(project, search, launch, SweepReporter(learn))
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 3 + ["pruned"]
    last = page["trials"][3]
    assert last["curve"] == [[1, 9.0], [2, 9.0]]
    assert last["reason"] == "eval_loss 9.000 at step 2 is behind the other trials"
    run = store.load(project / "runs" / last["run"])
    assert (run.record["status"], run.stage("predict-tuned")) == ("pruned", {})
    assert "eval_steps: 2" in (run.folder / "configs/train.yaml").read_text(encoding="utf-8")


def test_the_winner_is_measured_once_on_test_rows(project: Path) -> None:
    (project / "data/test.json").write_text(json.dumps(rows(8, first=200)), encoding="utf-8")
    spec = project / "spec.yaml"
    spec.write_text(
        spec.read_text(encoding="utf-8").replace("eval.json}", "eval.json, test: data/test.json}"), encoding="utf-8"
    )
    launch = FakeLaunch()
    page = carry_out(project, RATES, launch)
    assert page["test"]["trial"] == 2 and page["test"]["metrics"]["accuracy"]["value"] == 100.0
    assert stages(launch, "train") == [1e-4, 1e-3, 1e-2]
    measured = store.load(project / "runs" / page["test"]["run"])
    assert measured.stage("train")["reused_from"] == page["trials"][1]["run"]
    asked = read_json(measured.folder / "configs/prepare.json")
    assert (asked["eval"], asked["test"]) == ("data/test.json", None)
    started = len(launch.started)
    assert carry_out(project, RATES, launch)["test"] == page["test"]
    assert len(launch.started) == started


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (sweep(parameters={"learning_rate": [1e-3]}, metric="acuracy"), "nothing measures 'acuracy'"),
        (
            sweep(parameters={"lora_rank": [8, -1]}),
            "the trial lora_rank=-1 cannot run: train.lora_rank: must be at least 1",
        ),
    ],
)
def test_what_cannot_run_is_said_before_anything_starts(project: Path, search: Sweep, words: str) -> None:
    launch = FakeLaunch()
    with pytest.raises(InputError) as raised:
        carry_out(project, search, launch)
    assert words in raised.value.message
    assert launch.started == [] and not (project / "runs").exists()


def test_an_interruption_ends_the_running_trials(project: Path) -> None:
    def interrupt(running: list[Any]) -> None:
        if running and running[0].trial.number == 2:
            raise Interrupted("stop")

    launch = FakeLaunch(seconds=0.3)
    with pytest.raises(Interrupted):
        carry_out(project, RATES, launch, SweepReporter(interrupt))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trial")]
    status = {run.record["sweep"]["trial"]: run.record["status"] for run in store.every(project / "runs")}
    assert status == {1: "completed", 2: "interrupted"}
    page = carry_out(project, RATES, FakeLaunch())
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 3


def test_promote_and_export_mean_the_winner(project: Path) -> None:
    page = carry_out(project, RATES, FakeLaunch())
    folder = project / "runs" / page["id"]
    text = winner.promoted(folder, project / "spec.yaml")
    assert "learning_rate: 0.001" in text
    loaded = load_project(project / "spec.yaml")
    assert winner.overrides(loaded, page["id"]) == ["train.learning_rate=0.001"]
    with pytest.raises(InputError, match="does not train what the winner"):
        winner.overrides(load_project(project / "spec.yaml", ("train.seed=7",)), page["id"])
    (project / "spec.yaml").write_text(text, encoding="utf-8")
    launch = FakeLaunch()
    carry_out(project, sweep(parameters={"train.learning_rate": [1e-3]}), launch)
    assert stages(launch, "train") == []


KILLS = 10
MANY = sweep(parameters={"learning_rate": [1e-3 * (1 + n / 100) for n in range(24)]}, parallel=2)


def finished(project: Path) -> dict[str, str]:
    """Run → when its training began, of every run that is done."""
    done = (run for run in store.every(project / "runs") if run.record["status"] == "completed")
    return {run.id: run.stage("train")["started_at"] for run in done}


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing(project: Path) -> None:
    carry_out(project, sweep(parameters={"learning_rate": [0.5]}), FakeLaunch())  # imports everything before the forks
    chance = random.Random(5)
    kept: dict[str, str] = {}
    for _ in range(KILLS):
        process_id = os.fork()
        if process_id == 0:
            try:
                carry_out(project, MANY, FakeLaunch(seconds=0.02))
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0.1, 1.5))
        os.kill(process_id, signal.SIGKILL)
        os.waitpid(process_id, 0)
        now = finished(project)
        assert kept.items() <= now.items()
        kept = now
    page = carry_out(project, MANY, FakeLaunch())
    assert {trial["reason"] for trial in page["trials"]} == {None}
    assert [trial["status"] for trial in page["trials"]] == ["completed"] * 24
    assert [trial["number"] for trial in page["trials"]] == list(range(1, 25))
    assert len({trial["run"] for trial in page["trials"]}) == 24
    assert kept.items() <= finished(project).items()
    assert len(list(store.every(project / "runs"))) == 24 + 1  # none was begun anew beside a lost one
    assert len(list((project / "runs").glob(f"*/{layout.SWEEP}"))) == 2


class SleepingLaunch(FakeLaunch):
    """As its parent, but trains with the rate 1e-2 by a real process that would sleep for an hour."""

    pids: list[int]

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        fake = super().__call__(step, command)
        if step.stage != "train" or self.started[-1][1] != 1e-2:
            return fake
        child = process.start(replace(command, argv=("sh", "-c", "sleep 3600 & sleep 3600")))
        self.pids = [child.pid]
        return child


def test_the_processes_of_a_cancelled_trial_are_gone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(running: list[Any]) -> None:
        for one in running:
            if one.trial.point["learning_rate"] == 1e-2 and one.reason is None and hasattr(launch, "pids"):
                log = one.task.run.folder / layout.TRAINED / "trainer_log.jsonl"
                log.write_text('{"current_steps": 1, "loss": NaN}\n', encoding="utf-8")

    launch = SleepingLaunch()
    monkeypatch.setattr(sweeper, "WATCH_SECONDS", 0.05)
    page = carry_out(project, RATES, launch, SweepReporter(give_up))
    assert page["trials"][2]["reason"] == "training diverged: loss became nan at step 1"
    with pytest.raises(ProcessLookupError):
        os.killpg(launch.pids[0], 0)
