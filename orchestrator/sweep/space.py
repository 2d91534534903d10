"""The `parameters` of a sweep as points of a grid, or as Optuna's distributions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Point = dict[str, Any]
"""Parameter, as the spec names it → value."""


def grid(parameters: Mapping[str, Any]) -> list[Point]:
    """Every combination; the last parameter changes fastest."""
    return [dict(zip(parameters, values, strict=True)) for values in product(*map(values_of, parameters.values()))]


def values_of(space: Any) -> list[Any]:
    """A list's values, or those of a range with a step, both ends included where the step meets them."""
    if isinstance(space, list):
        return space
    low, high, step = (Decimal(str(space[key])) for key in ("low", "high", "step"))  # 0.1 + 0.2 is 0.3 here
    values = [low + step * number for number in range(int((high - low) / step) + 1)]
    whole = all(isinstance(space[key], int) for key in ("low", "step"))
    return [int(value) if whole else float(value) for value in values]


def distributions(parameters: Mapping[str, Any], is_grid: bool) -> dict[str, BaseDistribution]:
    """What Optuna chooses from; see `encode` for lists. Whole bounds make whole numbers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def of(space: Any) -> BaseDistribution:
        if is_grid or isinstance(space, list):
            return CategoricalDistribution([_text(value) for value in values_of(space)])
        whole = all(isinstance(space[key], int) for key in ("low", "high", "step") if key in space)
        low, high, log = space["low"], space["high"], bool(space.get("log"))
        if whole:
            return IntDistribution(low, high, log=log, step=space.get("step", 1))
        return FloatDistribution(low, high, log=log, step=space.get("step"))

    return {name: of(space) for name, space in parameters.items()}


def encode(point: Point, chosen_from: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A point in Optuna's terms: it stores choices as numbers and texts only, so each is written as JSON."""
    from optuna.distributions import CategoricalDistribution

    choices = {name for name, space in chosen_from.items() if isinstance(space, CategoricalDistribution)}
    return {name: _text(value) if name in choices else value for name, value in point.items()}


def decode(params: Mapping[str, Any], chosen_from: Mapping[str, BaseDistribution]) -> Point:
    """Optuna's parameters as a point, in the order of the spec."""
    return {name: json.loads(params[name]) if isinstance(params[name], str) else params[name] for name in chosen_from}


def label(point: Mapping[str, Any]) -> str:
    """A point in one line: `learning_rate=0.0005 lora_rank=8`."""
    return " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in point.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
