"""Values that may be written and are hardly meant. Pure: a spec in, warnings out; nothing is refused for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.spec.editing import spec_key
from orchestrator.spec.sections import Spec

HIGH, LOW = 1e-2, 1e-7
"""Learning rates beyond which AdamW diverges, or moves nothing; fine-tunings use 1e-6 (full) to 2e-3 (LoRA)."""
APART = 1000
"""Times that the largest of the rates a sweep tries may be the smallest."""
RATE = ("train", "learning_rate")


def doubts(spec: Spec) -> Iterator[str]:
    """What of the learning rates looks like a slip, a sentence each."""
    yield from _of_rate(spec.training["learning_rate"], "train.learning_rate")
    for name, space in (spec.sweep.parameters if spec.sweep else {}).items():
        if spec_key(name) == RATE:
            yield from _of_rates(_values(space), f"sweep.parameters.{name}")


def _values(space: object) -> list[float]:
    """The numbers of a list, or the ends of a range."""
    if isinstance(space, Mapping):
        space = [space.get("low"), space.get("high")]
    items = space if isinstance(space, list) else []
    return [float(item) for item in items if isinstance(item, int | float)]


def _of_rates(rates: list[float], key: str) -> Iterator[str]:
    for rate in rates:
        yield from _of_rate(rate, key)
    if rates and min(rates) > 0 and max(rates) > APART * min(rates):
        times = max(rates) / min(rates)
        yield f"{key}: {max(rates):g} is {times:,.0f} times {min(rates):g}; is one of them a slip?"


def _of_rate(rate: object, key: str) -> Iterator[str]:
    if isinstance(rate, int | float) and rate > HIGH:
        yield f"{key}: {rate:g} is far above what fine-tuning takes (1e-5 to 1e-3), and will likely diverge"
    elif isinstance(rate, int | float) and 0 < rate < LOW:
        yield f"{key}: {rate:g} is far below what fine-tuning takes (1e-5 to 1e-3), and will likely teach nothing"
