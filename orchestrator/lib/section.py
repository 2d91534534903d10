"""What all sections of a spec have in common."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # to look for some reads what is said of every installed package


class Section(BaseModel):
    """Strict, frozen, and closed: a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
