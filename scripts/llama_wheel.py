"""llama.cpp's wheel for this machine, compiled once and kept in the user's cache.

    llama_wheel.py [fetch|build|path|cache]

`fetch` brings the source archive, which the converter comes from as well; `build` compiles it, where that was not done
yet, and prints where the wheel is; `path` prints it only when it is there; `cache` prints the cache's folder. Needs
what requirements/build.txt names.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.lib import cpu
from orchestrator.lib.errors import OrchestratorError
from orchestrator.lib.fetch import download, unpack_source
from orchestrator.lib.files import building, cache_folder
from orchestrator.models import llamacpp

SETTINGS = Path(__file__).resolve().with_name("only_llama.cmake")
FLAGS = (
    "-DLLAVA_BUILD=OFF",  # images and sound
    f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={SETTINGS}",
)
COMPILERS = ("c++", "g++", "clang++")
CPUINFO = Path("/proc/cpuinfo")


def wheel_folder(compiler: str) -> Path:
    """Where the wheel lies, by all that decides what is in it: source, flags, compiler, and this CPU's instructions.

    ggml compiles for the CPU that it is compiled on (GGML_NATIVE), and a home may be shared by unequal machines.
    """
    flags = " ".join([flag.rpartition("/")[2] for flag in FLAGS] + [os.environ.get("CMAKE_ARGS", "")])
    source = [llamacpp.ARCHIVE.sha256, SETTINGS.read_text(encoding="utf-8"), flags]
    facts = [*source, _version(compiler), platform.system(), platform.machine(), *instructions()]
    return cache_folder() / "wheels" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]


def instructions(cpuinfo: Path = CPUINFO) -> list[str]:
    """The instruction sets of the first CPU, sorted; the processor's name where the system has no cpuinfo."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return [platform.processor()]
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return sorted(flags.partition(":")[2].split())


def compiler() -> str | None:
    """The C++ compiler that CMake would take."""
    wanted = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else COMPILERS
    return next(filter(None, map(shutil.which, wanted)), None)


def build(folder: Path) -> None:
    """Compile the archive into a wheel in `folder`. The steps of the compile go to the standard output."""
    archive = download(llamacpp.ARCHIVE, cache_folder() / "downloads")
    with building(folder) as made, tempfile.TemporaryDirectory(prefix="llama-cpp-") as temporary:
        source = Path(temporary) / "source"
        unpack_source(archive, source, lambda name: True)
        if code := subprocess.run(_pip_wheel(source, made), env=os.environ | _environment(Path(temporary))).returncode:
            sys.exit(code)


def _pip_wheel(source: Path, target: Path) -> Sequence[str]:
    argv = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-index", "--no-build-isolation"]
    return [*argv, "-C", f"build-dir={source.parent / 'build'}", "--wheel-dir", str(target), str(source)]


def _environment(folder: Path) -> dict[str, str]:
    cores = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(cpu.cores())
    flags = " ".join([*FLAGS, os.environ.get("CMAKE_ARGS", "")])
    # ggml calls ccache by itself where there is one; these make it find what it compiled in another temporary folder.
    ccache = {"CCACHE_BASEDIR": str(folder), "CCACHE_NOHASHDIR": "1"}
    return {"CMAKE_ARGS": flags, "CMAKE_GENERATOR": "Ninja", "CMAKE_BUILD_PARALLEL_LEVEL": cores, **ccache}


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]


def main(action: str) -> int:
    """The exit code; what went wrong is on the standard error."""
    found = compiler()
    if found is None:
        print(f"there is no C++ compiler: none of {', '.join(COMPILERS)} is on PATH", file=sys.stderr)
        return 3
    folder = wheel_folder(found)
    try:
        if action == "fetch":
            llamacpp.fetch()
        elif action == "build" and not folder.is_dir():
            build(folder)
    except OrchestratorError as error:
        print(error.message, error.hint, sep="\n", file=sys.stderr)
        return error.exit_code
    if action == "cache":
        print(cache_folder())
        return 0
    print(*folder.glob("*.whl"), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
