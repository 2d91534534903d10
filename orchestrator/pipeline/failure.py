"""What the user is told about a stage that failed, from its exit code and the end of its log, torchrun's included."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from orchestrator.lib import layout, secrecy
from orchestrator.lib.errors import GateError, InputError, MissingError, OrchestratorError, StageError
from orchestrator.lib.step import Step
from orchestrator.machine import environment

KNOWN_ERRORS = {error.exit_code: error for error in (InputError, MissingError, StageError, GateError)}
LOG_LINES = 12
"""So much of a log is quoted when a stage fails."""

QUOTED = 400
"""Characters of the line that an error message repeats."""

NO_MEMORY = (
    "out of memory",
    "memoryerror",
    "cannot allocate",
    "failed to allocate",
    "bad_alloc",
    "memory allocation",
    "killed by signal 9",
)
"""What Python, torch, llama.cpp and Rust libraries say, in lower case, when they get no memory."""

UNFIT = re.compile(
    r"(?:[\w.]+\.)?(?:ImportError|ModuleNotFoundError|OSError|RuntimeError): .*"
    r"(?:compiled with different CUDA|operator \S+ does not exist|undefined symbol|cannot open shared object file"
    r"|is required for a normal functioning of this module|cannot import name"
    r"|No module named '(?:torch|torchvision|torchaudio|transformers|llamafactory|llama_cpp)\b)"
)
"""What an import says that meets a package it was not made for: torchaudio, torch of torchvision's operators, the
loader of libraries, LLaMA-Factory's and transformers' check of versions, and Python."""

CRASHES = (-signal.SIGILL, -signal.SIGSEGV, -signal.SIGBUS)
"""What ends a process that computes with instructions which this CPU, or this Linux, does not carry out."""

TO_LOWER = {
    "train": "It ran out of memory: lower train.per_device_train_batch_size or train.cutoff_len.",
    "evaluate": "It ran out of memory: lower train.per_device_eval_batch_size or evaluate.max_new_tokens.",
}
"""Phase → the settings that decide most of the memory that it takes."""


def explain(step: Step, log: Path, code: int) -> OrchestratorError:
    """What to tell the user about a step that failed, from its exit code and its log."""
    lines = tail(log)
    if lines and lines[-1].startswith(layout.WORKER_ERROR):
        report = json.loads(lines[-1].removeprefix(layout.WORKER_ERROR))
        return KNOWN_ERRORS.get(report["exit_code"], StageError)(report["message"], report["hint"])
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    reason = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it printed nothing")
    message = f"{step.stage} {ended}: {secrecy.redacted(reason.strip())[:QUOTED]}"
    if UNFIT.match(reason.strip()):
        return MissingError(message, f"The installed packages do not fit each other: {environment.install_again()}")
    hint = out_of_memory(step.phase, lines, code) or _crash(step, code) or f"The whole log: {log}"
    return GateError(message, hint) if step.judges else StageError(message, hint)


def out_of_memory(phase: str, lines: list[str], code: int) -> str:
    """What to lower when a process of a phase ran out of memory, or ''."""
    text = "\n".join(lines).lower()
    if code == -9 or any(sign in text for sign in NO_MEMORY):
        return TO_LOWER.get(phase, "It ran out of memory: close other programs, or choose a smaller model.base.")
    return ""


def _crash(step: Step, code: int) -> str:
    """How to compile llama.cpp again where it ended the process, or ''."""
    if code not in CRASHES or "llama-cpp-python" not in step.inputs:
        return ""
    return f"llama.cpp may be compiled for another CPU: {environment.compile_again()}"


def tail(log: Path, size: int = 1 << 16) -> list[str]:
    """The last lines of a log that say something; broken UTF-8 and carriage returns do no harm."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return own_words([line for line in text.replace("\r", "\n").splitlines() if line.strip()])[-LOG_LINES:]


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
