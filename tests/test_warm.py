"""Warm stages behave as processes of their own: exit codes, log, folder, environment, session, and their end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from orchestrator.executors import warm
from orchestrator.executors.warm import WarmChild, WarmLauncher, is_python, launcher
from orchestrator.lib import process
from orchestrator.lib.step import Step

STEP = Step("try", "train", ())
ENDS = {
    "nothing": ("pass", 0),
    "exit": ("import sys; sys.exit(3)", 3),
    "exit with words": ("raise SystemExit('no')", 1),
    "exception": ("raise ValueError('资料')", 1),
    "signal": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
}


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """These programs need neither torch nor transformers."""
    monkeypatch.setattr(warm, "PRELOAD", "json")


def command(folder: Path, code: str, **env: str) -> process.Command:
    script = folder / "program.py"
    script.write_text(code, encoding="utf-8")
    return process.Command((sys.executable, str(script), "一"), folder, folder / "logs" / "try.log", env)


def run(folder: Path, code: str, **env: str) -> tuple[int, str]:
    child = WarmLauncher()(STEP, command(folder, code, **env))
    assert isinstance(child, WarmChild)
    return process.wait(child), (folder / "logs" / "try.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("code", "expected"), ENDS.values(), ids=ENDS)
def test_the_exit_code_is_that_of_a_process_of_its_own(tmp_path: Path, code: str, expected: int) -> None:
    plain = process.wait(process.start(command(tmp_path, code)))
    assert (plain, run(tmp_path, code)[0]) == (expected, expected)


def test_arguments_folder_environment_and_output_are_those_of_a_process_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "print(sys.argv[1:], __name__, os.getcwd(), os.environ['SLOT'], os.getsid(0) == os.getpid())\n"
        "print('错误', sys.stdin.read(), file=sys.stderr)\n"
    )
    assert run(tmp_path, code, SLOT="二") == (0, f"['一'] __main__ {tmp_path} 二 True\n错误 \n")
    assert "SLOT" not in os.environ


def test_a_traceback_is_in_the_log(tmp_path: Path) -> None:
    assert "ValueError: 资料" in run(tmp_path, ENDS["exception"][0])[1]


def test_stop_ends_what_a_stage_started(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    log = tmp_path / "logs" / "try.log"
    child = WarmLauncher()(STEP, command(tmp_path, code))
    until(lambda: log.is_file() and log.read_text().endswith("\n"))
    child.stop()
    assert child.poll() == -signal.SIGTERM
    until(lambda: not alive(int(log.read_text())))


def test_a_stage_does_not_outlive_a_tool_that_was_killed(tmp_path: Path) -> None:
    stage = command(tmp_path, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    tool = (
        "import time\nfrom pathlib import Path\n"
        "from orchestrator.lib import process\nfrom orchestrator.executors import warm\n"
        "warm.PRELOAD = 'json'\n"
        f"command = process.Command({tuple(stage.argv)!r}, Path({str(tmp_path)!r}), Path({str(stage.log)!r}))\n"
        "from orchestrator.lib.step import Step\n"
        "warm.WarmLauncher()(Step('try', 'train', ()), command)\n"
        "time.sleep(60)\n"
    )
    parent = process.start(process.Command((sys.executable, "-c", tool), tmp_path, tmp_path / "tool.log"))
    until(lambda: stage.log.is_file() and stage.log.read_text().endswith("\n"))
    os.kill(parent.pid, signal.SIGKILL)
    process.wait(parent)
    until(lambda: not alive(int(stage.log.read_text())))


def test_without_a_forkserver_stages_start_plainly_and_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(wanted: process.Command) -> None:
        raise EOFError("gone")

    monkeypatch.setattr(warm, "fork", fail)
    launch = WarmLauncher()
    children = [launch(STEP, command(tmp_path, "pass")) for _ in range(2)]
    assert [process.wait(child) for child in children] == [0, 0]
    assert caplog.messages == ["cannot start stages warm (EOFError('gone')); starting each by itself"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("llamafactory-cli", "train", "a.yaml"), True),
        ((sys.executable, "-m", "orchestrator.stages.score"), True),
        (("/bin/true",), False),
    ],
)
def test_only_python_programs_start_warm(argv: tuple[str, ...], expected: bool) -> None:
    assert is_python(argv) is expected


@pytest.mark.parametrize(
    ("execution", "stages", "is_warm"), [("auto", 1, False), ("auto", 2, True), ("cli", 9, False), ("warm", 1, True)]
)
def test_auto_is_warm_from_two_stages_on(execution: Literal["auto", "cli", "warm"], stages: int, is_warm: bool) -> None:
    assert (launcher(execution, stages) is not None) is is_warm


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
