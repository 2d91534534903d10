"""Makes .venv with everything in it, from the lock alone: `make setup`. Safe to interrupt and to repeat.

Runs in any Python from 3.8 on, with nothing installed, so it can say in one line what is in the way. uv brings the
packages while llama.cpp compiles; the wheel of llama.cpp, uv's packages and the built-in model stay in the user's cache,
so the next clone takes none of that time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lock
import trouble
from trouble import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = lock.ROOT
VENV = ROOT / ".venv"
LOGS = VENV / "set-up"
PYTHONS = ("3.11", "3.12", "3.13")
"""What the lock was resolved for."""
LLAMA = "llama-cpp-python"
ROOM = 10 * 2**30
"""Bytes that a first set-up takes: 7 GiB of packages, the rest downloads and the built-in model."""
BUILDS = re.compile(r"auto|cpu|cu\d{3}|rocm[\d.]+|xpu")
"""Builds of torch that PyTorch's own index has; uv knows where it is."""
TORCH = ("torch", "torchvision", "torchaudio")
SECONDS = 10
"""How often progress is said where the screen cannot be overwritten."""


def say(text: str) -> None:
    """A line about a step that begins."""
    print(f"[setup] {text}", flush=True)


# ---- before anything is downloaded ----


def interpreter(wanted: str) -> str:
    """A Python that the lock is for: the one asked for, else this one, else the newest on PATH."""
    given = wanted or sys.executable
    if version_of(given) in PYTHONS:
        return given
    others = [found for found in map(shutil.which, (f"python{version}" for version in reversed(PYTHONS))) if found]
    found = next((other for other in others if version_of(other) in PYTHONS), None)
    if wanted or found is None:
        raise Problem(
            f"{given} is Python {version_of(given) or 'of no version'}; {', '.join(PYTHONS)} are supported",
            f"Try: make setup PYTHON={found or 'python' + PYTHONS[-1]}",
        )
    say(f"this is Python {version_of(given)}: taking {found} instead")
    return found


def version_of(python: str) -> str:
    """`3.11`, or '' when there is no such program, or it does not work."""
    try:
        ask = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        return subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()
    except OSError:
        return ""


def require_compiler() -> None:
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, names)):
        raise Problem(
            f"there is no C++ compiler, which llama.cpp needs: no {', '.join(names)} on PATH",
            "Install one: apt install g++, dnf install gcc-c++, or on macOS xcode-select --install",
        )


def require_build(torch: str) -> None:
    if torch and not BUILDS.fullmatch(torch):
        raise Problem(f"there is no build {torch!r} of torch", "Try: make setup TORCH=auto, or cpu, or cu126")


def require_room(seen: Path) -> None:
    """Not where this lock was installed before, since the packages are in the cache then."""
    free = shutil.disk_usage(ROOT).free
    if not seen.exists() and free < ROOM:
        raise Problem(trouble.full(free, ROOT), trouble.AGAIN)


def require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(folder)).close()
    except OSError as error:
        raise Problem(
            f"the cache {folder} cannot be written: {error.strerror}",
            "Name a folder that can be: export XDG_CACHE_HOME=/a/folder/with/10/GB",
        ) from None


# ---- the steps ----


def make_venv(python: str) -> None:
    """.venv with the tools of requirements/build.txt; one whose Python is gone, or not supported, is made anew."""
    own = VENV / "bin/python"
    if version_of(str(own)) not in PYTHONS:
        shutil.rmtree(VENV, ignore_errors=True)
        done = subprocess.run([python, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise Problem(*trouble.explained(done.stdout.decode(errors="replace"), ROOT))
    LOGS.mkdir(exist_ok=True)
    for ready in VENV.glob(".ready-*"):
        ready.unlink()  # until all of it is done
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r"]
    run("tools", [str(own), *install, str(lock.FOLDER / "build.txt")])


def settings() -> dict[str, str]:
    """The environment for uv and pip: each is told what only the other was."""
    told = subprocess.run([str(VENV / "bin/python"), "-m", "pip", "config", "list"], stdout=subprocess.PIPE)
    environment = dict(os.environ)
    for variable, value in trouble.indexes(told.stdout.decode(errors="replace")).items():
        environment.setdefault(variable, value)
    if "PIP_INDEX_URL" not in environment and "UV_DEFAULT_INDEX" in environment:
        environment["PIP_INDEX_URL"] = environment["UV_DEFAULT_INDEX"]
    # The archive's backend is among our tools; pip would download it again to ask for the archive's name.
    return {**environment, "PIP_NO_BUILD_ISOLATION": "0", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


def packages(parts: Sequence[str], torch: str) -> list[str]:
    """uv's command for what the lock has, but for llama.cpp, and for torch where another build is wanted."""
    chosen = VENV / "set-up" / "packages.txt"
    wanted: dict[str, str] = {}
    for part in ("base", *parts):
        wanted.update(lock.stanzas((lock.FOLDER / f"{part}.txt").read_text(encoding="utf-8")))
    names = {head: lock.name_of(head) for head in wanted}
    left_out = {head for head, name in names.items() if name == LLAMA or (torch and lock.TORCH.fullmatch(name))}
    chosen.write_text("".join(block for head, block in wanted.items() if head not in left_out), encoding="utf-8")
    # The lock is complete, so nothing has to be resolved. What is built from source is built with the lock's tools.
    tools = ["--build-constraints", str(lock.FOLDER / "build.txt")]
    return uv("install", "--no-deps", "--require-hashes", *tools, "-r", str(chosen))


def other_torch(torch: str) -> list[str]:
    """uv's command for the lock's versions of torch from PyTorch's index, whose files have other hashes than PyPI's."""
    versions = lock.pins((lock.FOLDER / "base.txt").read_text(encoding="utf-8"))
    return uv("install", "--torch-backend", torch, *(f"{name}=={min(versions[name])}" for name in TORCH))


def uv(*arguments: str) -> list[str]:
    return [str(VENV / "bin/uv"), "pip", arguments[0], "--python", str(VENV / "bin/python"), *arguments[1:]]


def llama(action: str) -> list[str]:
    return [str(VENV / "bin/python"), str(ROOT / "scripts/llama_wheel.py"), action]


class Work:
    """A program that runs with its output in a log of its own."""

    def __init__(self, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> None:
        self.log = LOGS / f"{name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(argv, cwd=str(ROOT), env=env, stdout=output, stderr=subprocess.STDOUT)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def require(self) -> str:
        """Its output, once it has ended. Raises Problem when it did not end well."""
        if self.process.wait() != 0:
            message, hint = trouble.explained(self.text(), ROOT)
            raise Problem(message, hint or f"The whole log: {self.log}")
        return self.text()


def run(name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> str:
    """The output of a program that runs alone."""
    with ended(Work(name, argv, env)) as work:
        return work.require()


@contextmanager
def ended(work: Work) -> Iterator[Work]:
    """Ends a program when its block does, whatever happens in it."""
    try:
        yield work
    finally:
        if work.process.poll() is None:
            work.process.terminate()
            work.process.wait()


def together(works: dict[str, Work], until: str) -> None:
    """Say how far all have come until one has ended. Raises Problem when one fails meanwhile."""
    said, at = "", 0.0
    while works[until].process.poll() is None:
        for work in works.values():
            if work.process.poll():
                work.require()
        now = " · ".join(trouble.progress(name, work.text()) for name, work in works.items())
        if now != said and (sys.stdout.isatty() or time.monotonic() - at >= SECONDS):
            show(now)
            said, at = now, time.monotonic()
        time.sleep(0.2)
    if said and sys.stdout.isatty():
        print()
    works[until].require()


def show(progress: str) -> None:
    """A line that the next one overwrites, where the screen can."""
    before, after = ("\r\033[K", "") if sys.stdout.isatty() else ("", "\n")
    print(f"{before}[setup] {progress}", end=after, flush=True)


def install(parts: Sequence[str], torch: str, env: dict[str, str]) -> None:
    """Everything into .venv: packages and llama.cpp beside each other, then the built-in model beside the compile."""
    run("archive", llama("fetch"), env)
    with ended(Work("compile", llama("build"), env)) as compiling:
        with ended(Work("packages", packages(parts, torch), env)) as bringing:
            together({"packages": bringing, LLAMA: compiling}, until="packages")
        if torch:
            run("torch", other_torch(torch), env)
        run("ours", uv("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)), env)
        with ended(Work("model", [str(VENV / "bin/orchestrator"), "model", "fetch"], env)) as model:
            together({"model": model, LLAMA: compiling}, until="model")
        together({LLAMA: compiling}, until=LLAMA)
        wheel = compiling.require().splitlines()[-1]
    run("wheel", uv("install", "--no-deps", wheel), env)


def verify(torch: str) -> None:
    """What is installed fits together, and all of it is from the lock."""
    run("check", uv("check"))
    run(
        "lock",
        [str(VENV / "bin/python"), str(ROOT / "scripts/lock.py"), "--verify", *(["--other-torch"] if torch else [])],
    )


def set_up(python: str, torch: str, parts: Sequence[str]) -> None:
    """All of it. Raises Problem."""
    chosen = interpreter(python)
    if version_of(chosen) != version_of(sys.executable):
        os.execv(chosen, [chosen, *sys.argv])  # the lock is read with what Python has since 3.11
    require_compiler()
    require_build(torch)
    if unfit := next(lock.misfits(), None):
        raise Problem(unfit, "Try: make lock")
    say(f"tools into .venv (Python {version_of(chosen)})")
    make_venv(chosen)
    env = settings()
    caches = [
        Path(run("cache", [str(VENV / "bin/uv"), "cache", "dir"], env).strip()),
        Path(run("cache", llama("cache"), env).strip()),
    ]
    for cache in caches:
        require_writable(cache)
    seen = caches[1] / "set-up" / hashlib.sha256((lock.FOLDER / "base.txt").read_bytes()).hexdigest()[:16]
    require_room(seen)
    build = (
        f"torch from PyTorch's own index ({torch})"
        if torch
        else "torch for CUDA, about 5.5 GB on disk; TORCH=cpu takes a small one"
    )
    say(f"packages: {build}")
    install(parts, torch, env)
    (VENV / "torch").write_text(torch, encoding="utf-8")
    verify(torch)
    seen.parent.mkdir(exist_ok=True)
    seen.touch()
    say("a look at it: imports, one step of training, a conversion")
    if subprocess.run([str(VENV / "bin/orchestrator"), "doctor", "--try"], cwd=str(ROOT)).returncode != 0:
        raise Problem("what is installed does not work; the line above says why")


def main() -> int:
    """The exit code: 3 when something on this machine is in the way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="", help="the Python to make .venv with")
    parser.add_argument("--torch", default="", help="a build of torch from PyTorch's own index: auto, cpu, cu126 …")
    parser.add_argument("parts", nargs="*", help="parts of the lock beyond the base: dev, ray, deepspeed …")
    told = parser.parse_args()
    try:
        set_up(told.python, told.torch, told.parts)
    except Problem as problem:
        print("\n".join(filter(None, (f"setup: {problem.message}", problem.hint))), file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("setup: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
