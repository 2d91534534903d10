"""What is known of a spec's base model before anything is downloaded: from its folder, or from what its hub tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib.errors import MissingError
from orchestrator.models import sources
from orchestrator.models.shape import Model, read_model


@dataclass(frozen=True, slots=True)
class Known:
    """A base model as far as it is known here."""

    folder: Path | None = None
    """Where its settings and its tokenizer lie."""
    model: Model | None = None
    """Its size."""
    download: int = 0
    """Bytes that are to be fetched; 0 for a model that is here."""
    problem: str = ""
    """Why nothing is known, and what to do."""


def known(base: str, project: Path, runs_dir: Path | None = None) -> Known:
    """What is known of a base model. Of one that is not here, the Hugging Face hub is asked; nothing is raised for one
    that does not answer."""
    folder = sources.here(base, project, runs_dir)
    if folder is not None:
        return Known(folder, read_model(folder))
    if not base.startswith("hf:"):
        return Known(problem=f"{base} is not here; `orchestrator model fetch {base}` brings it")
    from orchestrator.models.outline import outline

    try:
        found = outline(base)
    except MissingError as error:
        return Known(problem=f"{error.message}\n{error.hint}")
    return Known(found.folder, found.model, found.download)
