"""Keeps pages true while runs and sweeps go on, so that an open tab follows along without a server."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import Interrupted, OrchestratorError
from orchestrator.lib.language import localised
from orchestrator.lib.step import Step
from orchestrator.pipeline.scheduler import Reporter
from orchestrator.report import is_current, write

SECONDS = 4.0
SHARE = 0.05
"""So much of the time may go into writing pages; the page of a large sweep is written less often."""


@dataclass(slots=True)
class LivePage:
    """The page of a run or a sweep.

    A page that cannot be written, as with a broken template of the project's own, is said once; no training fails for
    it.
    """

    folder: Path
    _next: float = field(default=0.0, init=False)

    def refresh(self) -> None:
        """Write the page if it has grown old."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write the page now."""
        if self._next == math.inf:
            return
        began = time.monotonic()
        try:
            write(self.folder)
            self._next = time.monotonic() + max(SECONDS, (time.monotonic() - began) / SHARE)
        except Interrupted:
            raise
        except (OrchestratorError, OSError, ValueError, LookupError, TypeError) as error:  # a log may hold anything
            self._next = math.inf
            said = localised(f"the report of {self.folder.name} is not kept up to date: {error}")
            logging.getLogger(__name__).warning("%s", said)


@dataclass(slots=True)
class LiveRun:
    """A watcher of steps that passes everything on to another one and keeps the run's page."""

    reporter: Reporter
    page: LivePage | None = field(default=None, init=False)

    def starts(self, step: Step, folder: Path) -> None:
        self.reporter.starts(step, folder)
        self.page = self.page or LivePage(folder)
        self.page.write()

    def tick(self) -> None:
        self.reporter.tick()
        if self.page:
            self.page.refresh()

    def ends(self, step: Step, status: str, seconds: float) -> None:
        self.reporter.ends(step, status, seconds)

    def write(self, done: Path | None = None) -> None:
        """Write the page of the run in which something was done, or of a finished one whose page tells less than it."""
        if done and not is_current(done):
            self.page = LivePage(done)
        if self.page:
            self.page.write()


@dataclass(slots=True)
class LiveSweep:
    """An audience that passes everything on to another one and keeps the pages of a sweep and its trials."""

    sweep_reporter: Any
    page: LivePage

    def watch(self, running: list[Any], done: int, total: int) -> None:
        self.sweep_reporter.watch(running, done, total)
        self.page.refresh()

    def ended(self, entry: dict[str, Any], total: int) -> None:
        self.sweep_reporter.ended(entry, total)
        if entry["run"]:
            LivePage(self.page.folder.parent / entry["run"]).write()
