"""Carrying out a plan: what may start beside what, and what is recorded when one of several stages fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from filelock import FileLock

from orchestrator.lib import layout, process
from orchestrator.lib.errors import GateError, Interrupted, StageError
from orchestrator.lib.files import HashCache, write_text
from orchestrator.lib.step import Step
from orchestrator.pipeline.plan import Plan, startable
from orchestrator.pipeline.scheduler import Scheduler
from orchestrator.runs import reuse, store
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run
from orchestrator.spec.sections import Spec


def step(name: str, *needs: str, exclusive: bool = False) -> Step:
    return Step(name, "evaluate", (name,), expects=(f"{name}.txt",), needs=needs, exclusive=exclusive)


def planned(*steps: Step) -> list[Planned]:
    return [Planned(one, f"print of {one.stage}", False, "new run") for one in steps]


PREPARE, TRAIN = step("prepare"), step("train", "prepare", exclusive=True)
BASE, TUNED = step("base", "prepare"), step("tuned", "prepare", "train")
MERGE, SCORE = step("merge", "train"), step("score", "base", "tuned")
CHAIN = (PREPARE, TRAIN, BASE, TUNED, MERGE, SCORE)


@pytest.mark.parametrize(
    ("waiting", "running", "at_once", "started"),
    [
        (CHAIN, (), 1, ["prepare"]),
        (CHAIN, (), 2, ["prepare"]),
        (CHAIN[1:], (), 2, ["train"]),
        (CHAIN[2:], (TRAIN,), 2, []),
        (CHAIN[2:], (), 1, ["base"]),
        (CHAIN[2:], (), 2, ["base", "tuned"]),
        (CHAIN[2:], (), 3, ["base", "tuned", "merge"]),
        (CHAIN[4:], (TUNED,), 2, ["merge"]),
        (CHAIN[5:], (TUNED,), 2, []),
        ((TRAIN, MERGE), (BASE,), 2, []),  # nothing overtakes what waits for the whole machine
        ((BASE, TRAIN), (), 2, ["base"]),
    ],
)
def test_what_may_start(waiting: tuple[Step, ...], running: tuple[Step, ...], at_once: int, started: list[str]) -> None:
    assert [one.step.stage for one in startable(planned(*waiting), running, lambda: at_once)] == started


@pytest.mark.parametrize(
    ("waiting", "running", "started"),
    [
        (("asked", "given"), (), ["given"]),
        (("asked",), ("given",), []),
        (("asked",), (), ["asked"]),  # where nothing is given any more, or ever, it is not waited for
    ],
)
def test_what_makes_a_step_faster_is_waited_for_only_where_it_comes(
    waiting: tuple[str, ...], running: tuple[str, ...], started: list[str]
) -> None:
    steps = {"asked": replace(step("asked"), after=("given",)), "given": step("given")}
    found = startable(planned(*(steps[name] for name in waiting)), [steps[name] for name in running], lambda: 2)
    assert [one.step.stage for one in found] == started


@dataclass
class Stage:
    """A child that ends when it is told to."""

    step: Step
    command: process.Command
    code: int | None = None
    stopped: bool = False
    pid: int = 1

    def poll(self) -> int | None:
        return -15 if self.stopped else self.code

    def stop(self) -> None:
        self.stopped = True

    def end(self, code: int = 0) -> None:
        if code == 0:
            write_text(self.command.cwd / self.step.expects[0], "done\n")
        else:
            write_text(self.command.log, "ValueError: no\n")
        self.code = code


@dataclass
class Stages:
    """Launches stages and, at each tick, lets the test have its turn with those that run."""

    turn: Callable[[dict[str, Stage]], None]
    started: dict[str, Stage] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        self.started[step.stage] = stage = Stage(step, command)
        return stage

    def starts(self, step: Step, folder: Path) -> None:
        self.seen.append(f"{step.stage} starts")

    def tick(self) -> None:
        self.turn({name: stage for name, stage in self.started.items() if stage.poll() is None})

    def ends(self, step: Step, status: str, seconds: float) -> None:
        self.seen.append(f"{step.stage} {status}")


def end_the_first(running: dict[str, Stage]) -> None:
    if running:
        next(iter(running.values())).end()


@pytest.fixture
def carry_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")

    def go(stages: Stages, steps: tuple[Step, ...] = CHAIN, at_once: int = 2) -> Run:
        run = store.create(tmp_path / "runs", "news")
        hashes = HashCache(tmp_path / "hashes.json")
        executor = Scheduler(tmp_path / "runs", hashes, stages, stages, at_once=lambda folder: at_once)
        try:
            executor.carry_out(Plan(Spec.model_construct(), run, tuple(planned(*steps))), run)
        finally:
            stages.seen.append(f"run {store.load(run.folder).record['status']}")
        return run

    return go


def test_stages_run_beside_each_other_with_a_part_of_the_cores(carry_out: Callable[..., Run]) -> None:
    stages = Stages(end_the_first)
    run = carry_out(stages)
    assert stages.seen == [
        "prepare starts", "prepare completed", "train starts", "train completed",
        "base starts", "tuned starts", "base completed", "merge starts", "tuned completed", "score starts",
        "merge completed", "score completed", "run completed",
    ]  # fmt: skip
    threads = {name: stage.command.env.get("OMP_NUM_THREADS") for name, stage in stages.started.items()}
    assert threads == {"prepare": None, "train": None, "base": "2", "tuned": "2", "merge": "2", "score": "2"}
    assert all(run.has(name, f"print of {name}") for name in stages.started)


def test_one_at_a_time_keeps_the_order_of_the_plan(carry_out: Callable[..., Run]) -> None:
    stages = Stages(end_the_first)
    carry_out(stages, at_once=1)
    assert list(stages.started) == [one.stage for one in CHAIN]
    assert not any("OMP_NUM_THREADS" in stage.command.env for stage in stages.started.values())


@pytest.mark.parametrize(("judges", "error"), [(False, StageError), (True, GateError)])
def test_a_stage_beside_one_that_fails_is_interrupted(
    carry_out: Callable[..., Run], judges: bool, error: type[Exception]
) -> None:
    def turn(running: dict[str, Stage]) -> None:
        if "base" in running:
            running["tuned"].end(1)
        else:
            end_the_first(running)

    stages = Stages(turn)
    with pytest.raises(error, match="ValueError: no"):
        carry_out(stages, (PREPARE, TRAIN, BASE, replace(TUNED, judges=judges), MERGE, SCORE))
    assert stages.seen[-3:] == ["tuned failed", "base interrupted", "run failed"]
    assert stages.started["base"].stopped and "merge" not in stages.started


def test_ctrl_c_ends_all_that_run(carry_out: Callable[..., Run]) -> None:
    def turn(running: dict[str, Stage]) -> None:
        if "base" in running:
            raise Interrupted("Ctrl-C")
        end_the_first(running)

    stages = Stages(turn)
    with pytest.raises(Interrupted):
        carry_out(stages)
    assert stages.seen[-3:] == ["base interrupted", "tuned interrupted", "run interrupted"]
    assert all(stages.started[name].stopped for name in ("base", "tuned"))


def test_what_another_tool_is_making_holds_up_nothing_else(carry_out: Callable[..., Run], tmp_path: Path) -> None:
    """The result that both need is begun once the other tool is at its end, and merging need not wait for that."""
    locks = tmp_path / "runs" / layout.LOCKS
    locks.mkdir(parents=True)
    other = FileLock(locks / "print of base")
    other.acquire()

    def turn(running: dict[str, Stage]) -> None:
        if "merge" in running or (not running and "merge" in stages.started):
            other.release()
        end_the_first(running)

    stages = Stages(turn)
    carry_out(stages, (PREPARE, TRAIN, replace(BASE, single_flight=True), TUNED, MERGE, SCORE), at_once=3)
    assert list(stages.started) == ["prepare", "train", "tuned", "merge", "base", "score"]


CUT = (
    PREPARE,
    replace(TRAIN, reads=("*.txt", "!asked.txt"), expects=("train.txt",)),
    replace(MERGE, reads=("train.txt",)),
    step("ask", "merge", "prepare"),
)


@dataclass
class Rows(Stages):
    """Stages of which `prepare` leaves two files, and `train` what it learnt from one of them."""

    rows: str = "rows"
    asked: str = "asked"

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        child = super().__call__(step, command)
        if step.stage == "prepare":
            write_text(command.cwd / "rows.txt", self.rows)
            write_text(command.cwd / "asked.txt", self.asked)
        return child


def with_rows(tmp_path: Path, rows: str, asked: str, paper: str = "same") -> list[str]:
    """The stages that start for a chain whose `prepare` leaves these rows, in a run of its own."""
    both = replace(CUT[0], leaves=("rows.txt", "asked.txt"))
    stages = Rows(end_the_first, rows=rows, asked=asked)
    plan = [
        Planned(
            one, f"{one.stage} after {rows} {asked} {paper}", False, "new run", own_fingerprint=f"{one.stage} {paper}"
        )
        for one in (both, *CUT[1:])
    ]
    run = store.create(tmp_path / "runs", "news")
    hashes = HashCache(tmp_path / "hashes.json")
    Scheduler(tmp_path / "runs", hashes, stages, stages).carry_out(Plan(Spec.model_construct(), run, tuple(plan)), run)
    assert all(run.has(one.step.stage, one.fingerprint, hashes) for one in plan)
    return list(stages.started)


def test_other_held_out_rows_repeat_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.0)
    assert with_rows(tmp_path, "红楼", "百行") == ["prepare", "train", "merge", "ask"]
    assert with_rows(tmp_path, "红楼", "百行又十行") == ["prepare", "ask"]
    assert with_rows(tmp_path, "西游", "百行") == ["prepare", "train", "ask"]  # which came out the same here
    assert with_rows(tmp_path, "红楼", "百行", paper="other") == ["prepare", "train", "merge", "ask"]


@dataclass
class Weights(Stages):
    """Stages of which `train` leaves these weights; each ends as soon as it has begun."""

    turn: Callable[[dict[str, Stage]], None] = end_the_first
    weights: str = ""

    def __call__(self, step: Step, command: process.Command) -> process.Child:
        child = super().__call__(step, command)
        if step.stage == "train":
            write_text(command.cwd / "weights.txt", self.weights)
        return child


def test_a_training_that_was_repeated_is_not_put_beside_what_follows_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.0)
    chain = planned(PREPARE, replace(TRAIN, leaves=("weights.txt",)), MERGE)
    repeated = [chain[0], replace(chain[1], why=reuse.FORCED)]

    def carried_out(run: Run, plan: Sequence[Planned], weights: str = "") -> list[str]:
        stages, hashes = Weights(weights=weights), HashCache(tmp_path / "hashes.json")
        scheduler = Scheduler(tmp_path / "runs", hashes, stages, stages)
        scheduler.carry_out(Plan(Spec.model_construct(), run, tuple(plan)), run)
        return list(stages.started)

    first, second, third = (store.create(tmp_path / "runs", "news") for _ in range(3))
    assert carried_out(first, chain, "1") == ["prepare", "train", "merge"]
    assert carried_out(second, repeated, "2") == ["train"]
    assert carried_out(second, chain[2:]) == ["merge"]
    assert carried_out(third, chain) == []
    assert third.stage("train")["reused_from"] == third.stage("merge")["reused_from"] == second.id


def test_links_that_were_deleted_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from orchestrator.runs import cache

    monkeypatch.setattr(process, "LOOK_SECONDS", 0.0)
    with_rows(tmp_path, "红楼", "百行")
    shutil.rmtree(tmp_path / "runs" / cache.FOLDER)
    cache._asked.clear()
    assert with_rows(tmp_path, "红楼", "千行") == ["prepare", "ask"]
