"""What a doctor is told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.spec.sections import Spec

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    """`note` for what is absent and can be done without, `missing` for what is needed."""
    detail: str
    mend: str = ""
    """The command that mends it."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the machine is examined for."""

    project: Path
    spec: Spec
    online: bool = False
    """Whether the network may be asked."""
    trying: bool = False
    """Whether a toy may be trained."""
