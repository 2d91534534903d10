"""`python -m orchestrator.lib.subreaper COMMAND …`: run a command, and end with it everything that it has started,
however it or we may end.

torchrun puts each of its processes into a session of its own, where a signal to the group of the stage does not reach
them, and `llamafactory-cli` leaves torchrun behind when it is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

import psutil

from orchestrator.lib import process

SECONDS = process.GRACE_SECONDS / 2
"""Given to what was started before it is killed: less than is given to us."""


def main() -> None:
    """Exit as the command does; 128 + N where signal N ended it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    process.adopt_orphans()
    process.die_with_parent(signal.SIGTERM)
    command = sys.argv[1:]
    try:
        child = os.posix_spawnp(command[0], command, os.environ)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        end_descendants()
    sys.exit(code if code >= 0 else 128 - code)


def end_descendants() -> None:
    """Ask everything below this process to end, then make it."""
    for ending in (psutil.Process.terminate, psutil.Process.kill):
        left = psutil.Process().children(recursive=True)
        for descendant in left:
            with contextlib.suppress(psutil.Error):
                ending(descendant)
        psutil.wait_procs(left, timeout=SECONDS)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
