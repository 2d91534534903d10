"""One door to other programs: output, exit codes, and no orphan behind it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator import cli
from orchestrator.lib import process
from orchestrator.lib.errors import Interrupted

FAMILY = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', '{child}']);"
    "print(p.pid, flush=True); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def command(tmp_path: Path, code: str, **env: str) -> process.Command:
    return process.Command([sys.executable, "-c", code], tmp_path, tmp_path / "logs" / "a.log", env)


def test_output_and_errors_go_to_the_log(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['WORD'], os.getcwd()); print('二', file=sys.stderr); sys.exit(3)"
    wanted = command(tmp_path, code, WORD="一")
    assert process.wait(process.start(wanted)) == 3
    assert wanted.log.read_text(encoding="utf-8").split() == ["一", str(tmp_path), "二"]


def test_the_interpreters_own_programs_come_first(tmp_path: Path) -> None:
    path = process.child_environment({})["PATH"]
    assert path.split(os.pathsep)[0] == str(Path(sys.executable).parent)


@pytest.mark.parametrize("child", ["import time; time.sleep(60)", STUBBORN], ids=["willing", "stubborn"])
def test_stopping_a_child_ends_its_children(tmp_path: Path, child: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    wanted = command(tmp_path, FAMILY.format(child=child))
    started = process.start(wanted)
    grandchild = read_pid(wanted.log)
    started.stop()
    assert not alive(started.pid) and not alive(grandchild)


def test_what_interrupts_the_wait_ends_the_child(tmp_path: Path) -> None:
    started = process.start(command(tmp_path, "import time; time.sleep(60)"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.wait(started, interrupt)
    assert not alive(started.pid)


def test_an_interruption_that_python_dropped_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the instant of a fork: what is raised in a fork hook never reaches whoever forks."""
    monkeypatch.setattr(sys, "unraisablehook", cli._keep_interruption)
    monkeypatch.setattr(Interrupted, "dropped", None)

    class Interrupting:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    started = process.start(command(tmp_path, "import time; time.sleep(60)"))
    del (dropped := [Interrupting()])[:]
    assert dropped == []
    with pytest.raises(KeyboardInterrupt):
        process.wait(started)
    assert not alive(started.pid)


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import sys, time; from orchestrator.lib import process;"
        "argv = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        "c = process.start(process.Command(argv, Path('.'), Path('l')));"
        "print(c.pid, flush=True); time.sleep(60)"
    )
    wanted = command(tmp_path, code)
    parent = process.start(wanted)
    child = read_pid(wanted.log)
    os.kill(parent.pid, 9)
    parent.poll()
    wait_until(lambda: not alive(child))


def read_pid(log: Path) -> int:
    wait_until(lambda: log.read_text().strip().isdigit())
    return int(log.read_text())


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
