"""What is on this machine and what is missing, each with the command that fixes it.

Nothing that is looked at is imported here: an installation may be broken, and torch takes seconds to load. Whether the
packages can be imported together is found out in a process of its own, once for each set of versions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from orchestrator.lib.errors import OrchestratorError
from orchestrator.lib.files import cache_folder, nearest
from orchestrator.lib.words import counted
from orchestrator.models import sources
from orchestrator.models.sizing import fits, run_bytes, seven_b
from orchestrator.report import doctor_devices, doctor_packages, together
from orchestrator.report.doctor_packages import Check, Patient

ROOM = 5 * 2**30
"""Bytes of disk below which a run on a small model may not end well: merged weights, f16 GGUF and checkpoints."""


def examine(patient: Patient) -> list[Check]:
    """Everything there is to say, in the order in which it should be fixed."""
    return [
        doctor_packages.python(),
        *doctor_packages.packages(),
        *doctor_packages.asked_for(patient),
        doctor_packages.command(),
        *doctor_devices.gpus(),
        doctor_devices.torch(),
        doctor_packages.converter(patient.spec.llama_cpp),
        _base_model(patient),
        *(together.trial() if patient.trying else [together.imports()]),
        *_disks(patient.project),
        seven_b_fits(patient.spec.training, doctor_devices.memory(), _free(patient.project)),
        doctor_devices.ollama(),
        *doctor_devices.hubs(patient),
    ]


def _base_model(patient: Patient) -> Check:
    base = patient.spec.model.base
    try:
        folder = sources.find_folder(base, patient.project)
    except OrchestratorError as error:
        return Check("base model", "missing", error.message, error.hint)
    if folder is None:
        return Check("base model", "missing", f"{base} is not here", f"orchestrator model fetch {base}")
    return Check("base model", "ok", f"{base} at {folder}")


def seven_b_fits(training: Mapping[str, Any], gpu: int, free: int) -> Check:
    """Whether a model of seven billion parameters can be trained here: on a GPU of so many bytes (0: none), with so
    many free on the disk."""
    tokens, model = int(training["cutoff_len"]), seven_b()
    disk = model.weights + sum(run_bytes(model, ("q4_k_m",)).values())
    room = f"{decimal(disk)} of disk, of which {decimal(free)} are free"
    if not gpu:
        needs = " or ".join(
            f"{fit.needed / 2**30:.0f} GiB for {fit.way}" for fit in fits(model, training, tokens, 0)[:2]
        )
        return Check("7B run", "note", f"not here: it needs a GPU with {needs}; {room}")
    fit = next((fit for fit in fits(model, training, tokens, gpu) if fit.batch), None)
    if fit is None:
        return Check("7B run", "note", f"does not fit a GPU of {gpu / 2**30:.0f} GiB; {room}")
    rows = f"{counted(fit.batch, 'row')} of {tokens} tokens at a time"
    enough = free >= disk
    return Check("7B run", "ok" if enough else "note", f"{fit.way} fits the GPU, {rows}; {room}")


def _free(folder: Path) -> int:
    return shutil.disk_usage(nearest(folder)).free


def _disks(project: Path) -> Iterator[Check]:
    for name, folder in (("disk of the project", project), ("disk of the cache", cache_folder())):
        there = nearest(folder)
        free = shutil.disk_usage(there).free
        detail = f"{free / 2**30:,.0f} GiB free at {there}"
        enough = free >= ROOM
        yield Check(name, "ok" if enough else "missing", detail, "" if enough else "orchestrator runs prune")
