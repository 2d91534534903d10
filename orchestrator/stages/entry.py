"""Programs that the steps start: `python -m orchestrator.stages.entry.NAME CONFIG`, in the run's folder.

Each is one process with one log, so that heavy imports, and crashes of native code, stay out of the tool itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.lib import layout
from orchestrator.lib.errors import OrchestratorError


def run(main: Callable[[Path], None]) -> None:
    """Call a worker's main with the path of its configuration; end with the exit code of what went wrong."""
    try:
        main(Path(sys.argv[1]))
    except OrchestratorError as error:
        report = {"exit_code": error.exit_code, "message": error.message, "hint": error.hint}
        print(layout.WORKER_ERROR + json.dumps(report, ensure_ascii=False), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
