"""What `doctor` looks at: Python, its packages, and the converter of llama.cpp."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from orchestrator.lib import process
from orchestrator.lib.errors import OrchestratorError
from orchestrator.machine import environment, requirements
from orchestrator.models import llamacpp
from orchestrator.spec.sections import Spec

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    """`note` for what is absent and can be done without, `missing` for what is needed."""
    detail: str
    fix: str = ""
    """The command that fixes it."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the machine is examined for."""

    project: Path
    spec: Spec
    online: bool = False
    """Whether the network may be asked."""
    trying: bool = False
    """Whether a toy may be trained."""


DISTRIBUTIONS = ("llamafactory-orchestrator", "llamafactory")
"""Whose declared requirements must hold together; between them they name every package that a result depends on."""


def python() -> Check:
    """The interpreter; an older one could not have installed us."""
    return Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def packages() -> Iterator[Check]:
    """What is missing or does not fit; one line of praise where everything does."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for name in DISTRIBUTIONS for text in _requirements(name)]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    problems = [check for one in needed if (check := _unmet(one.name, str(one.specifier)))]
    yield from dict.fromkeys(problems)
    if not problems:
        versions = ", ".join(
            f"{name} {environment.version(name)}" for name in ("llamafactory", "transformers", "torch", "peft")
        )
        yield Check("packages", "ok", f"{len(needed)} requirements fit each other: {versions}")


def _requirements(distribution: str) -> list[str]:
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return [distribution] if distribution == "llamafactory" else []  # we run from a folder that is not installed


def _unmet(name: str, specifier: str) -> Check | None:
    from packaging.specifiers import SpecifierSet

    found = environment.version(name)
    fix = environment.install_again() if name in environment.TORCH else f"pip install '{name}{specifier}'"
    if found is None:
        return Check(name, "missing", f"not installed; {name}{specifier} is needed", fix)
    if not SpecifierSet(specifier).contains(found, prereleases=True):
        return Check(name, "missing", f"{found} does not fit; {name}{specifier} is needed", fix)
    return None


def asked_for(patient: Patient) -> Iterator[Check]:
    """What the spec's training needs beyond that: trackers, optimisers, quantisers."""
    for one in requirements.missing(patient.spec.train, patient.spec.launched):
        yield Check("training", "missing", one.message, one.fix)
    for package, found in requirements.versions(patient.spec.train, patient.spec.launched).items():
        yield Check(package, "ok", found)


def command() -> Check:
    """LLaMA-Factory's program."""
    path = shutil.which("llamafactory-cli", path=process.child_environment({})["PATH"])
    if path is None:
        return Check("llamafactory-cli", "missing", "not beside this Python or on PATH", "pip install llamafactory")
    if " " in path:  # its launcher splits its own command at spaces
        return Check("llamafactory-cli", "missing", f"{path!r} holds a space", "python3 -m venv /a/path/without/spaces")
    return Check("llamafactory-cli", "ok", path)


def converter(chosen: str | None) -> Check:
    """llama.cpp's converter, and whether it is of the commit that the runtime was built from."""
    try:
        folder = llamacpp.checkout(chosen)
    except OrchestratorError as error:
        return Check("converter", "missing", error.message, error.hint)
    if folder is None:
        return Check("converter", "missing", "llama.cpp's converter has not been fetched", "orchestrator model fetch")
    runtime, source = f"llama-cpp-python=={environment.version('llama-cpp-python')}", llamacpp.version(folder)
    if source == runtime:
        return Check("converter", "ok", f"converter and runtime are both of {runtime}")
    return Check("converter", "note", f"converter of {source}, runtime of {runtime}: their llama.cpp may differ")
