"""How a program that we start ourselves tells what went wrong: the last line of its log, which we read back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from orchestrator.lib import layout
from orchestrator.lib.errors import OrchestratorError


def run(main: Callable[[], None]) -> None:
    """Call a program's work; end with the exit code of what went wrong, and with a line that says it."""
    try:
        main()
    except OrchestratorError as error:
        report = {"exit_code": error.exit_code, "message": error.message, "hint": error.hint}
        print(layout.WORKER_ERROR + json.dumps(report, ensure_ascii=False), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
