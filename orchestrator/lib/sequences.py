"""Two texts, or two rows of tokens, held side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def first_difference(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The first place, from 0, where the two differ, which is how long they begin alike; the end of the shorter where
    none does."""
    return next((at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
