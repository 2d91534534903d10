"""A metric of the user's own: a function of a row in a file of the project, one more entry of METRICS for a run.

It is code, and runs only in the stage that scores; what it may get wrong is told in one line.
"""

from __future__ import annotations

import ast
import contextlib
import math
import runpy
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from orchestrator.evaluation.metric import METRICS, Metric
from orchestrator.lib.errors import InputError

if TYPE_CHECKING:
    from orchestrator.evaluation.rows import Row

SECONDS = 10.0
"""How long a function may think about one row."""
_SHOWN = 60  # characters of what it returned or raised


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """`metrics.py:json_fields`: a function of a file of the project."""

    file: str
    function: str

    @classmethod
    def of(cls, text: str) -> OwnMetric:
        """The reference in a spec; the function is what the metric is called."""
        file, _, function = text.partition(":")
        return cls(file, function)

    @property
    def kept(self) -> str:
        """Where a run keeps its copy of the file, which is what runs."""
        return f"configs/own/{self.file.replace('/', '.').lstrip('.')}"

    def __str__(self) -> str:
        return f"{self.file}:{self.function}" if self.function else self.file


def functions(source: str) -> list[str]:
    """The functions that a file defines, read without running it. Raises InputError where it is no Python."""
    try:
        return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(f"is no Python{f' (line {line})' if line else ''}: {error.args[0]}") from None


@contextlib.contextmanager
def registered(references: Sequence[str]) -> Iterator[None]:
    """METRICS with the functions of a run's own files, which are run by that."""
    made = {one.function: _metric(one) for one in map(OwnMetric.of, references)}
    METRICS.update(made)
    try:
        yield
    finally:
        for name in made:
            del METRICS[name]


def titles(references: Sequence[str]) -> dict[str, str]:
    """Name → head of a column, for a summary: who shows it later does not run the code."""
    return {one.function: one.function.replace("_", " ") for one in map(OwnMetric.of, references)}


def _metric(one: OwnMetric) -> Metric:
    score = _loaded(one)
    return Metric(one.function, one.function.replace("_", " "), of_row=lambda row: _scored(one, score, row))


def _loaded(one: OwnMetric) -> Callable[[Row], Any]:
    try:
        with _at_most(SECONDS):
            found = runpy.run_path(one.kept, run_name=Path(one.file).stem).get(one.function)
    except BaseException as error:
        raise _refusal(one, f"cannot be loaded: {_said(error)}", error) from None
    if not callable(found):
        raise InputError(f"evaluate.metrics: {one}: the file defines no such function", _HINT)
    return found  # type: ignore[no-any-return]


def _scored(one: OwnMetric, score: Callable[[Row], Any], row: Row) -> float:
    try:
        with _at_most(SECONDS):
            value = score(row)
    except BaseException as error:
        raise _refusal(one, f"fails on row {row.id}: {_said(error)}", error) from None
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        what = f"evaluate.metrics: {one} returns {repr(value)[:_SHOWN]} for row {row.id}, not a number from 0 to 1"
        raise InputError(what, _HINT)
    return number


_HINT = "Return a number from 0 to 1 for every row, also for an empty answer; docs/evaluation.md has examples."


def _refusal(one: OwnMetric, what: str, error: BaseException) -> BaseException:
    """Ctrl-C stays what it is; anything else, `sys.exit` among it, is the function's fault."""
    return error if isinstance(error, KeyboardInterrupt) else InputError(f"evaluate.metrics: {one} {what}", _HINT)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())[: 2 * _SHOWN]
    return text if isinstance(error, Slow) else f"{type(error).__name__}{f': {text}' if text else ''}"


class Slow(BaseException):
    """Nothing that a function of ten lines would catch."""

    def __str__(self) -> str:
        return f"it took more than {SECONDS:g} seconds"


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
