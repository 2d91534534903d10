"""Which versions of Python, LLaMA-Factory and transformers pass together: `make compat [ARGS="3.12-oldest …"]`.

Each environment is made anew from what is committed, tested, and removed. docs/compat.md has a row for each one tried.
What lies beyond a bound of ours is tried as well, and has to break in the way that is the bound's reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lock

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/compat"
RESULTS = WORK / "results.json"
PAGE = ROOT / "docs/compat.md"
PYTHONS = ("3.11", "3.12", "3.13")
PAIRS = {
    "oldest": "the oldest LLaMA-Factory and transformers that our ranges allow",
    "pinned": "the lock, which `make setup` installs",
    "newest": "the newest release of everything that our ranges allow",
}
FOLLOW = {"llamafactory", "transformers", "tokenizers", "huggingface-hub", "trl"}
"""What an old transformers cannot have as new as the lock names it."""
BEYOND = {
    "beyond-torch": (("torch==2.15.0", "torchaudio==2.11.0"), "compiled with different CUDA versions"),
    "beyond-transformers": (("transformers==5.7.0",), "is required for a normal functioning of this module"),
}
"""Name → what our bounds keep out, and what the imports say when it is there all the same. Nothing beyond the bounds
of torchvision and torchaudio has been released, so those cannot be tried."""
BREAKS = "breaks, as the bound says"
GOOD = ("passes", BREAKS)
SHOWN = ("llamafactory", "transformers", "trl", "peft", "torch", "torchaudio")
CHAIN = ["tests/integration/test_chain.py"]
ROOMS = ("llamafactory", "spec_*", "stages*", "render", "chat_template_registry", "evaluation_*", "data_reading",
         "doctor", "layers", "startup", "step", "records", "warm")  # fmt: skip
"""Tests of what meets other people's code, or Python itself, and takes no training."""
SECONDS = 3600
UV = str(Path(sys.executable).with_name("uv"))
Json = dict[str, Any]


def main(wanted: list[str]) -> int:
    """Try the pairs that are named, or all of them; 1 when one fails."""
    known = [f"{python}-{pair}" for python in PYTHONS for pair in PAIRS] + [f"{PYTHONS[0]}-{pair}" for pair in BEYOND]
    if unknown := set(wanted) - set(known):
        print(f"no {', '.join(sorted(unknown))}; choose from {', '.join(known)}", file=sys.stderr)
        return 2
    results: Json = {}
    for name in wanted or known:
        python, _, pair = name.partition("-")
        result = tried(python, pair)
        WORK.mkdir(parents=True, exist_ok=True)
        results = (json.loads(RESULTS.read_text()) if RESULTS.exists() else {}) | {name: result}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        PAGE.write_text(page(results), encoding="utf-8")
        print(f"{name}: {results[name]['verdict']}", flush=True)
    return 0 if all(results[name]["verdict"] in GOOD for name in wanted or known) else 1


def tried(python: str, pair: str) -> Json:
    """What came of one environment; it is removed again."""
    interpreter = found(python)
    if interpreter is None:
        return {"verdict": f"not tried: no Python {python} on that machine"}
    folder = WORK / f"{python}-{pair}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return examined(interpreter, pair, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def examined(interpreter: str, pair: str, folder: Path) -> Json:
    """The environment's versions and how many tests pass in it."""
    own, checkout, began = folder / "venv/bin/python", folder / "checkout", time.monotonic()
    log = WORK / f"{folder.name}.log"
    log.unlink(missing_ok=True)
    call(["git", "clone", "-q", str(ROOT), str(checkout)], ROOT, log)
    (folder / "constraints.txt").write_text("\n".join(constraints(pair)) + "\n")
    call([UV, "venv", "-q", "--python", interpreter, str(folder / "venv")], ROOT, log)
    install = [UV, "pip", "install", "-q", "--python", str(own)]
    packages = ["-e", f"{checkout}[dev]", "-c", str(folder / "constraints.txt"), "--find-links", llama_wheel(log)]
    if call([*install, *packages], checkout, log):
        return {"verdict": f"cannot be installed: {last_line(log)}"}
    if pair in BEYOND:
        return beyond(pair, own, install, log)
    return {**tested(own, checkout, log), "minutes": round((time.monotonic() - began) / 60)}


def beyond(pair: str, own: Path, install: list[str], log: Path) -> Json:
    """What the imports say of versions that our bounds keep out."""
    replacements, sign = BEYOND[pair]
    only = ["--no-deps"] if pair == "beyond-transformers" else []  # torch brings its own CUDA
    if call([*install, *only, *replacements], ROOT, log):
        return {"verdict": f"cannot be installed: {last_line(log)}"}
    failed = call([str(own), "-m", "orchestrator.report.together_process"], ROOT, log)
    said = sign in log.read_text(errors="replace")
    verdict = (
        BREAKS if failed and said else f"fails otherwise: {last_line(log)}" if failed else "works: the bound can go"
    )
    return {"versions": versions(own), "verdict": verdict, "unit": f"`{sign}`" if failed and said else ""}


def llama_wheel(log: Path) -> str:
    """The folder of the wheel that set-up compiled; without it each environment would compile llama.cpp again."""
    argv = [sys.executable, str(ROOT / "scripts/llama_wheel.py"), "build"]
    done = subprocess.run(argv, capture_output=True, text=True)
    log.write_text(done.stdout + done.stderr)
    return str(Path(last_line(log)).parent)


def tested(own: Path, checkout: Path, log: Path) -> Json:
    """An environment's versions, and what its tests say."""
    unit = sorted(str(path) for room in ROOMS for path in checkout.glob(f"tests/test_{room}.py"))
    result: Json = {"versions": versions(own)}
    for name, paths in (("unit", unit), ("chain", CHAIN)):
        call(
            [str(own), "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow and not nightly", *paths],
            checkout,
            log,
        )
        result[name] = last_line(log).strip("= ")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.MULTILINE)
    passed = not failed and "passed" in result["unit"] and "passed" in result["chain"]
    return {"verdict": "passes" if passed else "fails", **result, "failed": failed}


def constraints(pair: str) -> list[str]:
    """pip's constraints for a pair. The lower ends of the ranges are read from where they stand."""
    if pair == "newest":
        return []
    texts = [(lock.FOLDER / f"{part}.txt").read_text(encoding="utf-8") for part in (lock.BASE, "dev")]
    pinned = [head for text in texts for head in lock.stanzas(text)]
    if pair != "oldest":
        return pinned
    lowest = [lowest_of("llamafactory"), lowest_of("transformers")]
    return [line for line in pinned if lock.name_of(line) not in FOLLOW] + lowest


def lowest_of(dependency: str) -> str:
    """`dependency==VERSION` with the lowest version that we allow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = map(Requirement, project["dependencies"])
    bounds = next(need.specifier for need in needs if need.name == dependency)
    return f"{dependency}=={next(bound.version for bound in bounds if bound.operator == '>=')}"


def found(python: str) -> str | None:
    """An interpreter of a version, also one that pyenv keeps."""
    kept = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{python}.*/bin/python"))
    for candidate in (*map(str, kept), f"python{python}"):
        ask = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if shutil.which(candidate) and subprocess.run(ask, capture_output=True, text=True).stdout.strip() == python:
            return candidate
    return None


def versions(own: Path) -> Json:
    """The versions in an environment of what decides whether it works."""
    code = f"import json, platform; from importlib.metadata import version as v; \
print(json.dumps({{'python': platform.python_version(), **{{name: v(name) for name in {SHOWN!r}}}}}))"
    answer: Json = json.loads(subprocess.run([own, "-c", code], capture_output=True, text=True, check=True).stdout)
    return answer


def call(argv: list[str], cwd: Path, log: Path) -> int:
    """Run a command, its output at the end of the log; the exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        return subprocess.run(argv, cwd=cwd, stdout=output, stderr=output, timeout=SECONDS).returncode


def last_line(log: Path) -> str:
    """The last line that says something."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def page(results: Json) -> str:
    """docs/compat.md."""
    rows = ["| Python | pair | " + " | ".join(SHOWN) + " | unit tests | chain | |", "|" + "---|" * (len(SHOWN) + 5)]
    for name, result in sorted(results.items()):
        made = result.get("versions", {})
        cells = [made.get("python", name.partition("-")[0]), name.partition("-")[2]]
        cells += [made.get(package, "") for package in SHOWN]
        cells += [result.get("unit", ""), result.get("chain", ""), result["verdict"]]
        rows.append("| " + " | ".join(cells) + " |")
    failing = [f"- {name}: `{test}`" for name, result in results.items() for test in result.get("failed", ())]
    kept_out = {pair: f"{' and '.join(versions)}, which our bounds keep out" for pair, (versions, _) in BEYOND.items()}
    parts = [HEAD, *(f"- **{pair}**: {what}" for pair, what in (PAIRS | kept_out).items()), "", *rows]
    if any(result.get("versions", {}).get("torchaudio") is None for result in results.values()):
        parts += ["", "Rows without a torchaudio were measured before there was a lock, with what was pinned then."]
    return "\n".join([*parts, *(["", "What fails:", "", *failing] if failing else [])]) + "\n"


HEAD = """\
# What works with what

Written by `make compat`, which makes an environment for each row from what is committed, runs the tests of all
that meets other packages and a chain on a tiny model in it, and removes it. A pair that is not listed was
not tried; what `make test` runs in is Python 3.11 with the lock. What our bounds in pyproject.toml keep out is tried by
importing it: it has to break in the way that is the bound's reason, or else the bound can go.
"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
