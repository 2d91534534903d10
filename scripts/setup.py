"""Makes .venv with everything in it, from the lock alone: `make setup`. Safe to interrupt and to repeat.

Runs in any Python from 3.8 on, with nothing installed, so it can say in one line what is in the way. uv brings the
packages while llama.cpp compiles; the wheel of llama.cpp, uv's packages and the built-in model stay in the user's
cache, so the next clone takes none of that time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import before
import lock
import trouble
from before import PYTHONS, version_of
from trouble import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = lock.ROOT
VENV = ROOT / ".venv"
LOGS = VENV / "set-up"
LLAMA = "llama-cpp-python"
TORCH = ("torch", "torchvision", "torchaudio")
IGNORED = {
    *("PYTHONPATH", "PIP_CONSTRAINT", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_NO_BINARY"),
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE_NEWER", "UV_NO_BINARY", "UV_TORCH_BACKEND", "UV_PRERELEASE"),
}
"""Variables that would decide what is installed, which the lock does. Where it comes from is the user's to say."""
SECONDS = 10
"""How often progress is said where the screen cannot be overwritten."""


def say(text: str) -> None:
    """A line about a step that begins."""
    print(f"[setup] {text}", flush=True)


def make_venv(python: str, torch: str) -> None:
    """.venv with the tools of requirements/build.txt, made anew where its Python is gone or torch is to be another."""
    own, chosen = VENV / "bin/python", VENV / "torch"
    there = chosen.read_text(encoding="utf-8") if chosen.is_file() else ""
    if version_of(str(own)) not in PYTHONS or there != torch:
        shutil.rmtree(VENV, ignore_errors=True)
        done = subprocess.run([python, "-m", "venv", str(VENV)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise Problem(*trouble.explained(done.stdout.decode(errors="replace"), ROOT))
    LOGS.mkdir(exist_ok=True)
    chosen.write_text(torch, encoding="utf-8")
    for ready in VENV.glob(".ready-*"):
        ready.unlink()  # until all of it is done
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r"]
    run("tools", [str(own), *install, str(lock.FOLDER / "build.txt")])


def settings() -> dict[str, str]:
    """The environment for uv and pip: each is told what only the other was."""
    told = subprocess.run([str(VENV / "bin/python"), "-m", "pip", "config", "list"], stdout=subprocess.PIPE)
    environment = {name: value for name, value in os.environ.items() if name not in IGNORED}
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


def compiled(wheel: Path) -> list[str]:
    """uv's command for the wheel of llama.cpp; found by name, so that no path of this machine is recorded with it."""
    requirement = f"{LLAMA}=={wheel.name.split('-')[1]}"
    return uv("install", "--no-deps", "--no-index", "--reinstall", "--find-links", str(wheel.parent), requirement)


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
        going = {name: work for name, work in works.items() if work.process.poll() is None}
        now = " · ".join(trouble.progress(name, work.text()) for name, work in going.items()) or said
        if now != said and (sys.stdout.isatty() or time.monotonic() - at >= SECONDS):
            show(now)
            said, at = now, time.monotonic()
        time.sleep(0.2)
    if said and sys.stdout.isatty():
        print()
    works[until].require()


def require_torch(torch: str, env: dict[str, str]) -> None:
    """Ask PyTorch's index for a build before anything is downloaded. Raises Problem where there is none."""
    try:
        run("torch", [*other_torch(torch), "--dry-run"], env)
    except Problem as problem:
        raise Problem(problem.message, f"{problem.hint} PyPI's build, for CUDA: make setup TORCH=") from None


def show(progress: str) -> None:
    """A line that the next one overwrites, where the screen can."""
    before, after = ("\r\033[K", "") if sys.stdout.isatty() else ("", "\n")
    print(f"{before}[setup] {progress}", end=after, flush=True)


def install(parts: Sequence[str], torch: str, env: dict[str, str]) -> None:
    """Everything into .venv: packages and llama.cpp beside each other, then the built-in model beside the compile."""
    if torch:
        require_torch(torch, env)
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
        wheel = Path(compiling.require().splitlines()[-1])
    run("wheel", compiled(wheel), env)


def require_caches(env: dict[str, str]) -> Path:
    """The mark in our cache that this lock was installed here before. Raises Problem for a cache of no use."""
    uv_cache, own = (
        Path(run("cache", argv, env).strip()) for argv in ([str(VENV / "bin/uv"), "cache", "dir"], llama("cache"))
    )
    for cache in (uv_cache, own):
        before.require_writable(cache)
    seen = own / "set-up" / hashlib.sha256((lock.FOLDER / "base.txt").read_bytes()).hexdigest()[:16]
    for folder in (ROOT, uv_cache, own):
        before.require_room(seen, folder)
    return seen


def look() -> None:
    """Import it together, train and convert a toy."""
    if subprocess.run([str(VENV / "bin/orchestrator"), "doctor", "--try"], cwd=str(ROOT)).returncode != 0:
        raise Problem("what is installed does not work; the line above says why")


def set_up(python: str, torch: str, parts: Sequence[str]) -> None:
    """All of it. Raises Problem."""
    before.require_compiler()
    before.require_build(torch)
    before.require_parts(parts, lock.FOLDER)
    if unfit := next(lock.misfits(), None):
        raise Problem(unfit, "Try: make lock")
    say(f"tools into .venv (Python {version_of(python)})")
    make_venv(python, torch)
    env = settings()
    seen = require_caches(env)
    default = "torch for CUDA, about 5.5 GB on disk; TORCH=cpu takes a small one"
    say(f"packages, with {f'the {torch} build of torch, from its own index' if torch else default}")
    install(parts, torch, env)
    run("check", uv("check"))
    seen.parent.mkdir(exist_ok=True)
    seen.touch()
    say("a look at it: imports, one step of training, a conversion")
    look()


def main() -> int:
    """The exit code: 3 when something on this machine is in the way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="", help="the Python to make .venv with")
    parser.add_argument("--torch", default="", help="a build of torch from PyTorch's own index: auto, cpu, cu126 …")
    parser.add_argument("parts", nargs="*", help="parts of the lock beyond the base: dev, ray, deepspeed …")
    told = parser.parse_args()
    try:
        python = before.interpreter(told.python)
        if version_of(python) != version_of(sys.executable):
            say(f"this is Python {version_of(sys.executable)}: taking {python}")
            return subprocess.run([python, *sys.argv]).returncode  # the lock is read with what Python has since 3.11
        set_up(python, told.torch, told.parts)
    except Problem as problem:
        print("\n".join(filter(None, (f"setup: {problem.message}", problem.hint))), file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("setup: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
