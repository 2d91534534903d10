"""A dead process of a training on many devices: whose words are quoted, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.executors.warm import WarmChild, WarmLauncher
from orchestrator.lib import process
from orchestrator.lib.step import Step
from orchestrator.pipeline.failure import explain, own_words
from orchestrator.pipeline.stage_process import kept, start

STEP = Step("train", "train", (), spawns=True)

RAISED = """\
{'loss': 4.2}
[rank1]: Traceback (most recent call last):
[rank1]:   File "tuner.py", line 10, in <module>
[rank1]: ValueError: 第 3 行 坏了: bad row
{'loss': 4.1}
[rank0]: Traceback (most recent call last):
[rank0]:     work.wait()
[rank0]: RuntimeError: [gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:64708.
"""
LOST = """\
{'loss': 4.2}
[rank0]: Traceback (most recent call last):
[rank0]: RuntimeError: [gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:39097.
"""
EARLY = """\
Traceback (most recent call last):
  File "parser.py", line 5, in <module>
ValueError: Some keys are not used by the HfArgumentParser: ['x']
"""
MEMORY = """\
[rank0]: Traceback (most recent call last):
[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""
REPORT = """\
W1124 11:28:17.442000 27750 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 28012 closing signal
E1124 11:28:17.696000 27750 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {code}) local_rank: 1 (pid: 28022) of binary: python3
Traceback (most recent call last):
  File "launcher/api.py", line 386, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
launcher.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-24_11:28:17
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 28012)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 28012
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_11:28:17
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 28022) {name}
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
Traceback (most recent call last):
  File "subprocess.py", line 571, in run
    raise CalledProcessError(retcode, process.args,
subprocess.CalledProcessError: Command '['torchrun', '--nnodes', '1']' returned non-zero exit status 1.
"""  # noqa: E501
DIED = REPORT.format(code=1, name="")
KILLED = REPORT.format(code=-9, name=" (SIGKILL)")


@pytest.mark.parametrize(
    ("log", "quoted", "hint"),
    [
        (RAISED + DIED, "train ended with exit code 1: [rank1]: ValueError: 第 3 行 坏了: bad row", "The whole log"),
        (LOST + KILLED, "train ended with exit code 1: rank 1 was killed by signal 9", "ran out of memory"),
        (EARLY + DIED, "train ended with exit code 1: ValueError: Some keys are not used by the", "The whole log"),
        (MEMORY + DIED, "train ended with exit code 1: [rank0]: torch.OutOfMemoryError: CUDA out", "ran out of memory"),
        (EARLY, "train ended with exit code 1: ValueError: Some keys are not used by the", "The whole log"),
    ],
    ids=["raised", "killed", "before they met", "memory", "no torchrun"],
)
def test_the_process_that_died_first_is_quoted(tmp_path: Path, log: str, quoted: str, hint: str) -> None:
    file = tmp_path / "train.log"
    file.write_text(log, encoding="utf-8")
    error = explain(STEP, file, 1)
    assert error.message.startswith(quoted) and hint in error.hint


def test_only_the_words_of_the_others_are_left_out() -> None:
    lines = (RAISED + DIED).splitlines()
    assert own_words(lines) == [line for line in RAISED.splitlines() if not line.startswith("[rank0]")]
    assert own_words(EARLY.splitlines()) == EARLY.splitlines()


# ---- nothing outlives it

LEADER = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {!r}], start_new_session=True); {}"
WAIT = "print(p.pid, flush=True); time.sleep(60)"
LEAVE = "print(p.pid, flush=True); time.sleep(0.2); sys.exit(3)"
WILLING = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def begin(tmp_path: Path, worker: str, then: str) -> tuple[process.Child, psutil.Process]:
    """A kept command whose worker leads a session of its own, as torchrun's do."""
    log = tmp_path / "train.log"
    argv = kept(STEP, (sys.executable, "-c", LEADER.format(worker, then)))
    child = start(STEP, process.Command(argv, tmp_path, log))
    deadline = time.monotonic() + 30
    while not (log.is_file() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return child, psutil.Process(int(log.read_text()))


def gone(worker: psutil.Process) -> bool:
    return not psutil.wait_procs([worker], timeout=10)[1]


def test_what_is_left_of_a_command_that_ends_is_ended_with_it(tmp_path: Path) -> None:
    child, worker = begin(tmp_path, WILLING, LEAVE)
    assert process.wait(child) == 3 and gone(worker)


@pytest.mark.parametrize("worker", [WILLING, STUBBORN], ids=["willing", "stubborn"])
def test_stopping_a_command_ends_its_workers(tmp_path: Path, worker: str) -> None:
    child, grandchild = begin(tmp_path, worker, f"time.sleep(1); {WAIT}")  # by then it ignores what it wants to
    child.stop()
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_killing_the_tool_ends_the_workers(tmp_path: Path) -> None:
    tool = (
        "import sys; from pathlib import Path; from tests.test_torchrun import *; "
        "begin(Path(sys.argv[1]), WILLING, WAIT); time.sleep(60)"
    )
    child = process.start(process.Command((sys.executable, "-c", tool, str(tmp_path)), Path.cwd(), tmp_path / "tool"))
    deadline = time.monotonic() + 60
    log = tmp_path / "train.log"
    while not (log.is_file() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = psutil.Process(int(log.read_text()))
    os.kill(child.pid, signal.SIGKILL)
    assert process.wait(child) == -signal.SIGKILL and gone(worker)


def test_a_command_that_is_missing_says_so(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    child = start(STEP, process.Command(kept(STEP, ("no-such-program",)), tmp_path, log))
    assert process.wait(child) != 0 and "no-such-program" in log.read_text()


def test_such_a_step_is_never_forked_from_a_warm_process(tmp_path: Path) -> None:
    command = process.Command((sys.executable, "-c", "pass"), tmp_path, tmp_path / "train.log")
    child = WarmLauncher()(STEP, command)
    assert not isinstance(child, WarmChild) and process.wait(child) == 0
