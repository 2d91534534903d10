"""The lock: that it fits pyproject.toml, how it is read, and what is said of what does not fit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import setup

lock = setup.lock
HASH = "sha256:" + "0" * 64
BASE = f"""\
# A part of the lock.
# asks: torch>=2.4,<2.15
audioop-lts==0.2.2 ; python_full_version >= '3.13' \\
    --hash={HASH}
    # via gradio
llama_cpp.python==0.3.36 \\
    --hash={HASH} \\
    --hash={HASH}
    # via
    #   llamafactory-orchestrator (pyproject.toml)
torch==2.14.1 \\
    --hash={HASH}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of one part, for a project that asks for torch."""
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    monkeypatch.setattr(lock, "asked", lambda: {"base": ["torch>=2.4,<2.15"]})
    (tmp_path / "base.txt").write_text(BASE, encoding="utf-8")
    return tmp_path


def test_the_lock_fits_the_project() -> None:
    assert list(lock.misfits()) == []


def test_the_lock_holds_no_address_and_every_package_has_a_hash() -> None:
    for path in lock.FOLDER.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and "--index" not in text and " @ " not in text
        assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in lock.stanzas(text).values())


@pytest.mark.parametrize(
    "package", ["torch", "torchvision", "torchaudio", "llama-cpp-python", "uv", "ray", "deepspeed"]
)
def test_the_lock_names_one_version_of_what_matters(package: str) -> None:
    assert len(lock.locked()[package]) == 1


def test_what_the_bounds_keep_out_is_not_in_the_lock() -> None:
    major, minor = next(iter(lock.locked()["torch"])).split(".")[:2]
    assert (int(major), int(minor)) < (2, 15)


def test_build_tools_are_complete_without_the_base() -> None:
    """They are installed first, with hashes, which pip only does where nothing is left to resolve."""
    build = lock.pins((lock.FOLDER / "build.txt").read_text(encoding="utf-8"))
    assert {"uv", "pip", "setuptools", "scikit-build-core", "packaging", "pathspec", "cmake", "ninja"} <= build.keys()


def test_stanzas_and_pins_are_read(folder: Path) -> None:
    blocks = lock.stanzas(BASE)
    assert list(blocks) == [
        "audioop-lts==0.2.2 ; python_full_version >= '3.13'", "llama_cpp.python==0.3.36", "torch==2.14.1",
    ]  # fmt: skip
    assert blocks["llama_cpp.python==0.3.36"].count("--hash") == 2
    assert lock.pins(BASE) == {"audioop-lts": {"0.2.2"}, "llama-cpp-python": {"0.3.36"}, "torch": {"2.14.1"}}


def test_a_requirement_that_the_lock_was_not_made_for_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "asked", lambda: {"base": ["torch>=2.4,<2.14"], "ray": ["ray>=3"]})
    assert list(lock.misfits()) == [
        "pyproject.toml asks for 'torch>=2.4,<2.14', which requirements/base.txt was not made for",
        "requirements/base.txt was made for 'torch>=2.4,<2.15', which pyproject.toml does not ask for",
        "pyproject.toml asks for 'ray>=3', which requirements/ray.txt was not made for",
    ]


@pytest.mark.parametrize(
    ("installed", "other_torch", "said"),
    [
        ({"torch": "2.14.1", lock.OURS: "1.0"}, False, []),
        ({"torch": "2.15.0"}, False, ["torch 2.15.0 is installed; the lock has 2.14.1"]),
        ({"wandb": "0.2"}, False, ["wandb 0.2 is installed; the lock has no wandb"]),
        ({"torch": "2.14.1+cpu", "nvidia-cudnn-cu12": "9"}, True, []),
        ({"torch": "2.14.1+cpu"}, False, ["torch 2.14.1+cpu is installed; the lock has 2.14.1"]),
    ],
)
def test_what_is_installed_is_held_against_the_lock(
    folder: Path, installed: dict[str, str], other_torch: bool, said: list[str]
) -> None:
    assert list(lock.foreign(installed, other_torch)) == said


def test_what_an_upgrade_changes_is_said() -> None:
    before = {"torch": {"2.14.1"}, "gone": {"1"}, "same": {"1"}}
    after = {"torch": {"2.14.2"}, "same": {"1"}, "numpy": {"2", "3"}}
    assert lock.changes(before, after) == ["gone: 1 → none", "numpy: none → 2 and 3", "torch: 2.14.1 → 2.14.2"]


@pytest.mark.parametrize(("code", "kept"), [(0, "new"), (1, "old")])
def test_an_upgrade_is_kept_only_when_the_tests_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, kept: str
) -> None:
    texts = {"old": BASE, "new": BASE.replace("2.14.1", "2.14.2")}
    monkeypatch.setattr(lock, "compiled", lambda uv, upgrade: {"base": texts["new"]})
    monkeypatch.setattr(lock.subprocess, "run", lambda argv, cwd: subprocess.CompletedProcess(argv, code))
    if code:
        with pytest.raises(lock.Unfit, match="the old lock is back"):
            lock.upgraded("uv")
    else:
        lock.upgraded("uv")
    assert (folder / "base.txt").read_text(encoding="utf-8") == texts[kept]


def test_the_command_verifies_what_this_runs_in() -> None:
    """Nothing here but what the lock has, or the lines that say what else; never a traceback."""
    done = subprocess.run(
        [sys.executable, str(lock.ROOT / "scripts/lock.py"), "--verify"], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if list(lock.foreign(lock.installed())) else 0)
