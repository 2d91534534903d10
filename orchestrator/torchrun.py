"""Whose fault it was that a training on many devices ended: torchrun's log, without what torchrun itself says."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

_REPORT = re.compile(r"[WEI]\d{4} .*torch/distributed/elastic/.*(?:closing signal|failed \(exitcode)")
"""Where torchrun begins to tell that a process has died: after the last words of the process, before its own."""
_RANK = re.compile(r"\[rank(\d+)\]:")
"""Before each line of an exception, once the processes have found each other: torch/distributed/distributed_c10d.py."""
_FAILURE = re.compile(r"^\s*rank\s*: (\d+) .*\n\s*exitcode\s*: -(\d+) ", re.MULTILINE)
"""A process that a signal ended, in the summary of torch/distributed/elastic/multiprocessing/errors."""


def own_words(lines: Sequence[str]) -> list[str]:
    """A log up to the error of the process that failed first; all of a log that no torchrun ended.

    When one process dies, the others fail too, for want of it, and torchrun and the one that started it report that.
    """
    end = next((number for number, line in enumerate(lines) if _REPORT.match(line)), None)
    if end is None:
        return list(lines)
    words, report = lines[:end], "\n".join(lines[end:])
    killed = [(rank, int(number)) for rank, number in _FAILURE.findall(report) if int(number) != signal.SIGTERM]
    if killed:
        rank, number = killed[0]
        return [*(line for line in words if not _RANK.match(line)), f"rank {rank} was killed by signal {number}"]
    first = next((found[1] for line in words if (found := _RANK.match(line)) and "Error" in line), None)
    return [line for line in words if (found := _RANK.match(line)) is None or found[1] == first]
