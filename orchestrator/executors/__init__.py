"""Where trials and runs can be carried out. A new executor is a file of its own and one name here.

Its module has `create(wanted)`, which returns an Executor or raises MissingError.
"""

from __future__ import annotations

from types import ModuleType

from orchestrator.executors import local, ray, slurm
from orchestrator.executors.base import Executor, Wanted

EXECUTORS: dict[str, ModuleType] = {"local": local, "ray": ray, "slurm": slurm}


def create(name: str, wanted: Wanted) -> Executor:
    """An executor by its name. Raises MissingError where its package is not installed, or nobody answers."""
    found: Executor = EXECUTORS[name].create(wanted)
    return found
