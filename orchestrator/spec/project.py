"""What every command works on: a spec, where it came from, and what was asked beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.lib.files import HashCache
from orchestrator.spec.sections import Spec


@dataclass(frozen=True, slots=True)
class Project:
    """A spec that can run, the folder it belongs to, and the options of the command line; pickled with a job."""

    spec: Spec
    root: Path
    """The folder that the spec's paths are relative to."""
    path: Path
    """The spec's file."""
    text: str
    """The file's text, the overrides written into it."""
    runs_dir: Path
    """Where its runs are kept."""
    overrides: Sequence[str]
    """What `--set` said, as `key.path=value`."""
    force: Collection[str]
    """Stages or phases to repeat even if they are up to date."""
    hashes: HashCache
    chosen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Stage → what `speed: auto` chose, of a run that is made again."""

    @property
    def training(self) -> Mapping[str, Any]:
        """All training arguments: our defaults, overridden by the user's."""
        return self.spec.training
