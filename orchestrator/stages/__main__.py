"""`python -m orchestrator.stages PROGRAM CONFIG`: carry one stage out, in a run's folder.

Each is one process with one log, so that heavy imports, and crashes of native code, stay out of the tool itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.lib import process
from orchestrator.lib.files import read_json
from orchestrator.stages import PROGRAMS


def main() -> None:
    """Make the stage of its configuration, and run it."""
    name, config = sys.argv[1:3]
    PROGRAMS[name](**read_json(Path(config))).run()


if __name__ == "__main__":
    process.run_program(main)
