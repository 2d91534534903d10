"""Programs that import torch and LLaMA-Factory, forked from the process that has imported them for the tests' stages.

Each is still a process of its own; only the seconds of imports are shared.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from orchestrator.executors.warm import WarmChild, fork
from orchestrator.lib import process
from tests.conftest import Result

TOOL = """
import os, sys
os.dup2(os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT), 2)
from orchestrator.cli import main
main()
"""


def told(code: str, given: str = "") -> str:
    """What a program prints, warnings too, which finds the path of a file with `given` in sys.argv[1]."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "given"
        asked.write_text(given, encoding="utf-8")
        done = _run(code, (str(asked),), Path(folder), Path(folder), {})
    assert done.code == 0, done.stdout
    return done.stdout


def run_tool_warm(arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    """`python -m orchestrator …`, as `run_tool` runs it."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        done = _run(TOOL, (str(errors), *arguments), cwd, Path(folder), env or {})
        return Result(done.code, done.stdout, errors.read_text(encoding="utf-8"))


def _run(code: str, arguments: tuple[str, ...], cwd: Path, folder: Path, env: Mapping[str, str]) -> Result:
    program, log = folder / "program.py", folder / "log"
    program.write_text(code, encoding="utf-8")
    command = process.Command((sys.executable, str(program), *arguments), cwd, log, env)
    exit_code = process.wait(WarmChild(fork(command)))
    return Result(exit_code, log.read_text(encoding="utf-8"), "")
