"""Which trial comes next, and which should end early: Optuna decides, its journal in the sweep's folder remembers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.spec.sections import EarlyStopping, Sweep
from orchestrator.sweep.space import Point, decode, distributions, encode, grid

if TYPE_CHECKING:
    import optuna

DEFAULT_TRIALS = 20
SEED = 42
NAME = "sweep"
OUTCOME = "outcome"
Keeps = Callable[[dict[str, Any]], bool]
"""Whether the result of a finished trial is still there, from its outcome."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep: a point, and which of its repetitions."""

    number: int
    """From 1."""
    point: Point
    repetition: int
    """From 0; each trains with another seed."""
    inner: optuna.Trial = field(repr=False, compare=False)


class Study:
    """The trials of one sweep, point by point, each with its repetitions. A trial that was asked for and not
    told is asked for again after a restart."""

    def __init__(
        self, file: Path, sweep: Sweep, minimise: bool, parallel: int = 1, keeps: Keeps = lambda outcome: True
    ) -> None:
        self._sweep, self._parallel, self._keeps = sweep, parallel, keeps
        self._sign = 1 if minimise else -1
        self._points = grid(sweep.parameters) if sweep.method == "grid" else []
        self._spaces = distributions(sweep.parameters, sweep.method == "grid")
        self._study = self._take_over(file, sweep.early_stopping)

    @property
    def total(self) -> int:
        """How many trials there will be."""
        return (len(self._points) or self._sweep.trials or DEFAULT_TRIALS) * self._sweep.seeds

    def finished(self) -> list[tuple[Trial, dict[str, Any]]]:
        """Every trial that was told, with its outcome, in order."""
        frozen = (trial for trial in self._frozen() if trial.state.is_finished())
        return [(self._trial(trial), trial.user_attrs[OUTCOME]) for trial in frozen]

    def next(self) -> Trial | None:
        """A trial that was left over, else a new one, or None when all have been asked for."""
        from optuna.trial import TrialState

        trials, waiting = self._frozen(), TrialState.WAITING
        number = next((trial.number for trial in trials if trial.state is waiting), len(trials))
        if number >= self.total:
            return None
        if number == len(trials) and (fixed := self._fixed(number, trials)) is not None:
            self._study.enqueue_trial(encode(fixed, self._spaces))
        # A sampler that is seeded anew for each trial gives the same points however often the sweep is interrupted.
        self._study.sampler = self._sampler(SEED + number)
        return self._trial(self._study.ask(self._spaces))

    def tell(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Record how a trial ended: `{status, value: {value, …} | None, …}`."""
        from optuna.trial import TrialState

        # what an unusable model was worth tells the sampler where not to look
        states = dict.fromkeys(("completed", "unusable"), TrialState.COMPLETE) | {"pruned": TrialState.PRUNED}
        state = states.get(outcome["status"], TrialState.FAIL)
        trial.inner.set_user_attr(OUTCOME, outcome)
        self._study.tell(trial.inner, outcome["value"]["value"] if state is TrialState.COMPLETE else None, state)

    def should_end(self, trial: Trial, step: int, loss: float) -> bool:
        """Whether a trial with this loss at this step is so far behind that it should end."""
        trial.inner.report(self._sign * loss, step)
        return bool(trial.inner.should_prune())

    def _fixed(self, number: int, trials: list[Any]) -> Point | None:
        """The point of a new trial where it is not the sampler's to choose."""
        point, repetition = divmod(number, self._sweep.seeds)
        if repetition:
            return decode(_known(trials[number - repetition]), self._spaces)
        return self._points[point] if self._points else None

    def _sampler(self, seed: int) -> Any:
        import optuna

        if self._sweep.method != "tpe":
            return optuna.samplers.RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, constant_liar=self._parallel > 1)

    def _take_over(self, file: Path, stopping: EarlyStopping | None) -> Any:
        """The study in the file, in which trials that have no result (any more) wait to be asked for again."""
        former = _create(file, self._sign, stopping).get_trials(deepcopy=False)
        made = _create(None, self._sign, stopping)  # in memory: a crash leaves the file as it was
        for trial in former:
            if _is_settled(trial) and self._keeps(trial.user_attrs[OUTCOME]):
                made.add_trial(trial)
            else:
                made.enqueue_trial(self._again(trial, former))
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        _create(fresh, self._sign, stopping).add_trials(made.get_trials(deepcopy=False))
        fresh.replace(file)
        return _create(file, self._sign, stopping)

    def _again(self, trial: Any, former: list[Any]) -> dict[str, Any]:
        """The parameters that a trial without a result is to be asked for with; none where it had no whole point yet,
        since a crash in the middle of sampling leaves half a one: sampling it anew gives the same point."""
        fixed = self._fixed(trial.number, former)
        known = _known(trial) if fixed is None else encode(fixed, self._spaces)
        return known if len(known) == len(self._spaces) else {}

    def _trial(self, inner: Any) -> Trial:
        return Trial(inner.number + 1, decode(inner.params, self._spaces), inner.number % self._sweep.seeds, inner)

    def _frozen(self) -> list[Any]:
        found: list[Any] = self._study.get_trials(deepcopy=False)
        return found


def _is_settled(trial: Any) -> bool:
    """Whether it would end as it did, were it done again: what failed may succeed, what diverged would diverge."""
    return trial.state.name in ("COMPLETE", "PRUNED") or trial.user_attrs.get(OUTCOME, {}).get("status") == "diverged"


def _known(trial: Any) -> dict[str, Any]:
    """The parameters of a trial, those included that it was enqueued with and has not asked for yet."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _create(file: Path | None, sign: int, stopping: EarlyStopping | None) -> Any:
    """A study in a file, which may hold one, or in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _cut_broken_end(file)
    return optuna.create_study(
        study_name=NAME,
        storage=optuna.storages.JournalStorage(_journal_class()(str(file))) if file else None,
        direction="minimize" if sign > 0 else "maximize",
        pruner=_pruner(stopping),
        load_if_exists=True,
    )


def _pruner(stopping: EarlyStopping | None) -> Any:
    import optuna

    if stopping is None:
        return optuna.pruners.NopPruner()
    if stopping.method == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=stopping.grace_steps)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=stopping.grace_steps)


def _cut_broken_end(file: Path) -> None:
    """Forget a last line that a crash left unfinished, for what follows it could never be read."""
    if file.is_file() and (text := file.read_bytes()) and not text.endswith(b"\n"):
        file.write_bytes(text[: text.rfind(b"\n") + 1])


@functools.cache
def _journal_class() -> Any:
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):  # type: ignore[misc]  # optuna is imported only when a sweep runs
        """Optuna's journal without its lock, which kill -9 would leave behind (the sweep's folder has a lock that
        ends with its process), and without a wait for the disk at each of a trial's ten entries."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            import json

            with Path(self._file_path).open("ab") as file:
                file.write("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())

    return Journal
