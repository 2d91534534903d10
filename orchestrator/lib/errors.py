"""Everything that can go wrong on purpose, in one place.

OrchestratorError            exit 1 is reserved for bugs; each subclass owns its exit code
├── InputError          2    usage, spec or data
│   ├── BusyError            another tool works on that run
│   └── DamagedError         a run's record is not as it was written
├── MissingError        3    something this machine lacks
├── StageError          4    a stage ran and failed
│   └── Diverged             a training lost its numbers
├── GateError           5    everything ran, and the numbers say no
├── Interrupted       130    the user pressed Ctrl-C
└── Pruned                   a sweep ended a trial early; never leaves the sweep
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class OrchestratorError(Exception):
    """A failure that a person can act on: one line that says what, one hint that says what next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(OrchestratorError):
    """The usage, the spec or the data is not acceptable."""

    exit_code = 2


class BusyError(InputError):
    """Another tool is working on this run; it may be left to it, or tried again later."""


class DamagedError(InputError):
    """A run's record cannot be read, or does not say what was written."""


class MissingError(OrchestratorError):
    """A tool, a package or a file of this machine is missing."""

    exit_code = 3


def reason(error: Exception) -> str:
    """The first line of what somebody else's exception says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def some(lines: Sequence[str], shown: int = 8) -> str:
    """The first of many complaints, a line each, and how many more there are."""
    more = [f"… and {len(lines) - shown} more"] if len(lines) > shown else []
    return "\n".join([*lines[:shown], *more])


def of_system(error: OSError) -> MissingError:
    """What to tell the user when the operating system refused something."""
    import errno

    what = f"{error.strerror or error}".partition("\n")[0]
    where = f": {error.filename}" if error.filename else ""
    full, refused = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (errno.EACCES, errno.EPERM, errno.EROFS)
    hint = "Fix that, then run the same command again; nothing that was finished is lost."
    if error.errno in full:
        hint = "Free some space, then run the same command again; nothing that was finished is lost."
    elif error.errno in refused:
        hint = "Allow writing there, or name another folder, such as with --runs-dir."
    return MissingError(f"{what}{where}", hint)


class StageError(OrchestratorError):
    """A stage ran and did not produce what it promised."""

    exit_code = 4


class Diverged(StageError):
    """A training lost its numbers: a loss, a gradient or a weight is not finite."""


class GateError(OrchestratorError):
    """Every stage ran, and the measured result misses what the spec demands."""

    exit_code = 5


class Interrupted(OrchestratorError):
    """The user, or a signal, asked us to stop."""

    exit_code = 130
    dropped: ClassVar[BaseException | None] = None
    """An interruption that Python swallowed, as it does with what a fork hook or a destructor raises."""


class Pruned(OrchestratorError):
    """A trial was ended early because others do better."""
