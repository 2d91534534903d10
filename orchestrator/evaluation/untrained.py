"""What needs no training, and what the tuned model gains over the best of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNTRAINED = {
    "majority": "always answering the most frequent label",
    "base": "the base model",
    "base-prompted": "the base model that is told the labels",
}
"""What needs no training, as tables have it and as a sentence calls it, in the order of a table."""


def best_first(comparisons: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Comparisons as summaries have them, those of the tuned model with what needs no training from the best one."""
    return sorted(comparisons, key=lambda one: -one["value_b"] if one["b"] in UNTRAINED else float("inf"))


def gain(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The tuned model against the best of several that need no training; None where it was held against one at most."""
    found = [one for one in summary.get("comparisons", ()) if one["b"] in UNTRAINED]
    return found[0] if len({one["b"] for one in found}) > 1 else None


def gain_sentence(found: Mapping[str, Any]) -> str:
    """What training gained over the best that needs none, in words."""
    difference = found["difference"]
    interval = f"95 % {difference['low']:+.1f}…{difference['high']:+.1f}"
    return (
        f"gain over the best baseline, {UNTRAINED[found['b']]} ({found['value_b']:.1f}): "
        f"{difference['value']:+.1f} points ({interval})"
    )
