"""What all sections of a spec have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Strict, frozen, and closed: a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
