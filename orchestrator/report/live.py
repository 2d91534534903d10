"""Keeps a run's page true while the run goes on, so that an open tab follows along without a server."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.execute import Watcher
from orchestrator.report import write
from orchestrator.step import Step

SECONDS = 4.0


@dataclass(slots=True)
class LivePage:
    """A watcher that passes everything on to another one and rewrites the page every few seconds."""

    watcher: Watcher
    run: Path
    _written: float = field(default=0.0, init=False)
    _broken: bool = field(default=False, init=False)

    def starts(self, step: Step, folder: Path) -> None:
        """A step began."""
        self.watcher.starts(step, folder)
        self.write()

    def tick(self) -> None:
        """It goes on."""
        self.watcher.tick()
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def ends(self, step: Step, status: str, seconds: float) -> None:
        """It is over."""
        self.watcher.ends(step, status, seconds)

    def write(self) -> None:
        """Write the page. One that cannot be written, as with a broken template, is said once and stops no training."""
        self._written = time.monotonic()
        if self._broken:
            return
        try:
            write(self.run)
        except (OrchestratorError, OSError) as error:
            self._broken = True
            logging.getLogger(__name__).warning("the report of %s is not kept up to date: %s", self.run.name, error)
