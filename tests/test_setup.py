"""Set-up before it downloads anything, and what it says of programs that failed; recorded from uv and pip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import setup

before, trouble = setup.before, setup.trouble
HASH = """\
Resolved 1 package in 109ms
error: Failed to download `six==1.17.0`
  cause: Hash mismatch for `six==1.17.0`

         Expected:
           sha256:0000000000000000000000000000000000000000000000000000000000000000
"""
REFUSED = """\
error: Failed to fetch: https://pypi.org/simple/idna/
  cause: error sending request for url (https://pypi.org/simple/idna/)
  cause: client error (Connect)
  cause: tunnel error: failed to create underlying connection
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""
NO_NAME = """\
error: Failed to fetch: https://user:geheim@no.such.host.invalid/simple/idna/
  cause: error sending request for url (https://user:geheim@no.such.host.invalid/simple/idna/)
  cause: dns error
"""
PIP_ABSENT = """\
ERROR: Could not find a version that satisfies the requirement cmake==4.4.5 (from versions: none)
ERROR: No matching distribution found for cmake==4.4.5
"""
FULL = """\
error: Failed to download `numpy==2.4.6`
  cause: failed to write to file `/c/numpy/_core/x.so`: No space left on device (os error 28)
"""
PIP_FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
READ_ONLY = """\
error: Failed to initialize cache at `small/c`
  cause: failed to create directory `/small/c`: Read-only file system (os error 30)
"""
NO_PIP = "The virtual environment was not created successfully because ensurepip is not available.\n"
BACKEND = """\
error: invalid value 'cu999' for '--torch-backend <TORCH_BACKEND>'
  [possible values: auto, cpu, cu132, cu130]

For more information, try '--help'.
"""
GCC = "/s/ggml.cpp:3:5: error: 'x' was not declared\nninja: build is over\n"
CMAKE = "CMake Error at CMakeLists.txt:3 (project):\n  -- Configuring incomplete, errors occurred!\n"


@pytest.mark.parametrize(
    ("log", "message", "hint"),
    [
        (HASH, "a package is not what the lock says: Hash mismatch for `six==1.17.0`", "index or mirror"),
        (
            REFUSED,
            "the package index pypi.org does not answer: Connection refused (os error 111)",
            "goes on where it stopped",
        ),
        (NO_NAME, "the package index no.such.host.invalid does not answer: dns error", "network"),
        (PIP_ABSENT, "the package index lacks a package: No matching distribution found for cmake==4.4.5", "mirror"),
        (FULL, "the disk is too full: ", "Make room"),
        (PIP_FULL, "the disk is too full: ", "goes on where it stopped"),
        (READ_ONLY, "a folder cannot be written: failed to create directory `/small/c`: Read-only", "XDG_CACHE_HOME"),
        (NO_PIP, "this Python has no ensurepip", "apt install python3-venv"),
        (CMAKE, "llama.cpp does not compile: CMake Error at CMakeLists.txt:3", ""),
        (BACKEND, "invalid value 'cu999' for '--torch-backend <TORCH_BACKEND>'", ""),
        (GCC, "llama.cpp does not compile: /s/ggml.cpp:3:5: error: 'x' was not declared", ""),
        ("one\nsomething else\n\n", "something else", ""),
        ("", "no reason given", ""),
    ],
)
def test_a_failure_is_one_line_and_one_hint(
    log: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in trouble.PROXIES:
        monkeypatch.delenv(variable, raising=False)
    said = trouble.explained(log, tmp_path)
    assert said[0].startswith(message) and "\n" not in said[0]
    assert hint in said[1]
    assert "geheim" not in said[0]


def test_a_full_disk_is_the_one_that_the_program_spoke_of(tmp_path: Path) -> None:
    line = f"cause: failed to write to file `{tmp_path}/c/numpy/x.so`: No space left on device (os error 28)"
    assert f" GiB are free at {tmp_path}, " in trouble.explained(line, Path("/"))[0]


def test_a_proxy_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:geheim@proxy.example:3128")
    message, _ = trouble.explained(REFUSED, tmp_path)
    assert message == (
        "the package index pypi.org does not answer through the proxy proxy.example:3128 of HTTPS_PROXY: "
        "Connection refused (os error 111)"
    )


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "x: under way"),
        ("Resolved 190 packages in 3s\nDownloading torch (528.9MiB)\nDownloading gradio (60MiB)\n Downloaded gradio\n",
         "x: 1 of the 2 large ones among 190 downloaded"),
        ("Resolved 190 packages in 3s\nInstalled 190 packages in 2s\n", "x: 190 installed"),
        ("  [1/83] /usr/bin/g++ a\n  [34/83] /usr/bin/g++ b\n", "x: 34 of 83 steps compiled"),
    ],
)  # fmt: skip
def test_progress_is_of_the_work(log: str, said: str) -> None:
    assert trouble.progress("x", log) == said


def test_a_mirror_that_pip_knows_is_told_to_uv() -> None:
    told = """\
:env:.disable-pip-version-check='1'
:env:.find-links='/wheels /more'
global.index-url='https://mirror.example/simple'
global.extra-index-url='https://a/simple\\nhttps://b/simple'
install.trusted-host='mirror.example'
global.timeout='60'
"""
    assert trouble.indexes(told) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_INSECURE_HOST": "mirror.example",
        "UV_FIND_LINKS": "/wheels,/more",
    }


@pytest.fixture
def pythons(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decides which versions of Python there are: `name="3.11"`."""

    def are(**versions: str) -> None:
        monkeypatch.setattr(before, "version_of", lambda python: versions.get(Path(python).name.replace(".", "_"), ""))
        monkeypatch.setattr(
            before.shutil, "which", lambda name: f"/bin/{name}" if name.replace(".", "_") in versions else None
        )

    return are


def test_a_python_that_fits_is_taken(pythons: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    pythons(python3="3.11")
    assert before.interpreter("") == "/usr/bin/python3"
    pythons(python3="3.10", python3_12="3.12", python3_13="3.13")
    assert before.interpreter("") == "/bin/python3.13"
    assert before.interpreter("python3.12") == "python3.12"


@pytest.mark.parametrize("version", ["3.10", "3.15"])
def test_a_python_that_does_not_fit_is_refused_in_one_line(
    version: str, pythons: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    pythons(python3=version)
    with pytest.raises(trouble.Problem) as raised:
        before.interpreter("")
    assert raised.value.message == f"/usr/bin/python3 is Python {version}; 3.11, 3.12, 3.13 are supported"
    pythons(python3=version, python3_12="3.12")
    with pytest.raises(trouble.Problem) as raised:
        before.interpreter("python3")
    assert raised.value.hint == "Try: make setup PYTHON=/bin/python3.12"


def test_without_a_compiler_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    monkeypatch.setattr(setup, "make_venv", lambda python, torch: pytest.fail("it went on"))
    with pytest.raises(trouble.Problem, match=r"no C\+\+ compiler.*no no-such-compiler on PATH"):
        setup.set_up(sys.executable, "", [])


@pytest.mark.parametrize(
    ("torch", "known"), [("", True), ("cpu", True), ("cu126", True), ("auto", True), ("gpu", False)]
)
def test_a_build_of_torch_is_one_that_there_is(torch: str, known: bool) -> None:
    if known:
        before.require_build(torch)
    else:
        with pytest.raises(trouble.Problem, match="no build 'gpu' of torch"):
            before.require_build(torch)


def test_a_lock_that_does_not_fit_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.lock, "misfits", lambda: iter(["pyproject.toml asks for 'scipy>=9'"]))
    monkeypatch.setattr(setup, "make_venv", lambda python, torch: pytest.fail("it went on"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(before.shutil, "which", lambda name: f"/bin/{name}")
    with pytest.raises(trouble.Problem) as raised:
        setup.set_up(sys.executable, "", [])
    assert (raised.value.message, raised.value.hint) == ("pyproject.toml asks for 'scipy>=9'", "Try: make lock")


def test_a_part_that_the_lock_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").touch()
    before.require_parts(["dev"], tmp_path)
    with pytest.raises(trouble.Problem) as raised:
        before.require_parts(["gpu"], tmp_path)
    assert (raised.value.message, raised.value.hint) == ("the lock has no part 'gpu'", "Choose from: dev.")


def test_room_is_asked_for_only_the_first_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "ROOM", 2**60)
    seen = tmp_path / "seen"
    with pytest.raises(trouble.Problem, match="the disk is too full"):
        before.require_room(seen, tmp_path)
    seen.touch()
    before.require_room(seen, tmp_path)


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(trouble.Problem) as raised:
        before.require_writable(tmp_path / "file" / "cache")
    assert "cannot be written" in raised.value.message and "XDG_CACHE_HOME" in raised.value.hint


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a .venv and for logs."""
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "LOGS", tmp_path / "set-up")
    (tmp_path / "set-up").mkdir()
    return tmp_path


def test_packages_are_the_locks_but_for_what_comes_otherwise(venv: Path) -> None:
    setup.packages(["dev"], "")
    plain = setup.lock.pins((venv / "set-up/packages.txt").read_text(encoding="utf-8"))
    setup.packages([], "cpu")
    other = setup.lock.pins((venv / "set-up/packages.txt").read_text(encoding="utf-8"))
    assert {"torch", "triton", "pytest", "gradio"} <= plain.keys() and "llama-cpp-python" not in plain
    assert "gradio" in other and not {"torch", "triton", "nvidia-cudnn-cu13", "pytest"} & other.keys()


def test_another_torch_has_the_locks_versions(venv: Path) -> None:
    argv = setup.other_torch("cu126")
    locked = setup.lock.locked()
    assert argv[argv.index("--torch-backend") + 1] == "cu126"
    assert {f"{name}=={min(locked[name])}" for name in setup.TORCH} <= set(argv)


def test_what_would_change_the_lock_is_not_passed_on(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONSTRAINT", "/etc/torch-2.4.txt")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.example/simple")
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(sys.executable)
    found = setup.settings()
    assert "PIP_CONSTRAINT" not in found
    assert found["PIP_INDEX_URL"] == "https://mirror.example/simple"


def test_the_first_that_fails_ends_the_others(venv: Path) -> None:
    failing = setup.Work("failing", [sys.executable, "-c", "import sys; sys.exit('ERROR: Permission denied: /x')"])
    with setup.ended(setup.Work("waiting", [sys.executable, "-c", "import time; time.sleep(60)"])) as waiting:  # noqa: SIM117
        with pytest.raises(trouble.Problem, match="cannot be written"):
            setup.together({"waiting": waiting, "failing": failing}, until="waiting")
    assert waiting.process.poll() is not None


def test_it_speaks_to_an_old_python_too() -> None:
    """Nothing newer than Python 3.8 knows may stand where it is read before it is said which Python is needed."""
    import ast

    for name in ("setup", "before", "trouble", "lock"):
        text = (setup.ROOT / f"scripts/{name}.py").read_text(encoding="utf-8")
        ast.parse(text, feature_version=(3, 8))


def test_the_wheel_is_kept_by_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts import llama_wheel

    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path))
    monkeypatch.setattr(llama_wheel, "_version", lambda compiler: "g++ 12")
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    plain = llama_wheel.wheel_folder("g++")
    assert plain == llama_wheel.wheel_folder("g++") and plain.is_relative_to(tmp_path)
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    with_cuda = llama_wheel.wheel_folder("g++")
    monkeypatch.setattr(llama_wheel, "instructions", lambda: ["neon"])
    on_arm = llama_wheel.wheel_folder("g++")
    monkeypatch.setattr(llama_wheel, "SETTINGS", tmp_path / "other.cmake")
    llama_wheel.SETTINGS.write_text("set(LLAMA_BUILD_COMMON ON)")
    assert len({plain, with_cuda, on_arm, llama_wheel.wheel_folder("g++")}) == 4


def test_the_wheel_has_nothing_of_amx() -> None:
    import llama_cpp

    compiled = llama_cpp.llama_print_system_info().decode()
    assert "CPU :" in compiled and "AMX" not in compiled


def test_the_instructions_of_a_cpu_are_read(tmp_path: Path) -> None:
    from scripts import llama_wheel

    intel, arm = tmp_path / "intel", tmp_path / "arm"
    intel.write_text("processor\t: 0\nflags\t\t: sse2 avx2 fma\n\nprocessor\t: 1\nflags\t\t: sse2\n")
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert llama_wheel.instructions(intel) == ["avx2", "fma", "sse2"]
    assert llama_wheel.instructions(arm) == ["asimd", "fp"]


def test_the_command_line_refuses_in_one_line() -> None:
    argv = [sys.executable, str(setup.ROOT / "scripts/setup.py"), "--torch=gpu"]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "CXX": sys.executable})
    assert (done.returncode, done.stderr.splitlines()) == (
        3, ["setup: there is no build 'gpu' of torch", "Try: make setup TORCH=auto, or cpu, or cu126"]
    )  # fmt: skip
