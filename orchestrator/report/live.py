"""Keeps a run's page true while the run goes on, so that an open tab follows along without a server."""

from __future__ import annotations

import logging
import math
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
    """A watcher that passes everything on to another one and rewrites the run's page every few seconds."""

    watcher: Watcher
    _run: Path | None = field(default=None, init=False)
    _written: float = field(default=0.0, init=False)

    def starts(self, step: Step, folder: Path) -> None:
        """A step began."""
        self.watcher.starts(step, folder)
        self._run = folder
        self.write()

    def tick(self) -> None:
        """It goes on."""
        self.watcher.tick()
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def ends(self, step: Step, status: str, seconds: float) -> None:
        """It is over."""
        self.watcher.ends(step, status, seconds)

    def write(self, run: Path | None = None) -> None:
        """Write the page, of the run last seen unless one is named.

        A page that cannot be written, as with a broken template of the project's own, is said once; no training fails
        for it.
        """
        folder = run or self._run
        if folder is None or self._written == math.inf:
            return
        self._written = time.monotonic()
        try:
            write(folder)
        except (OrchestratorError, OSError) as error:
            self._written = math.inf
            logging.getLogger(__name__).warning("the report of %s is not kept up to date: %s", folder.name, error)
