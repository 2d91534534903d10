"""Whether every point of a sweep is a spec that can run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from orchestrator.spec.document import Finding, Key, did_you_mean, quote
from orchestrator.spec.editing import spec_key, with_value
from orchestrator.spec.sections import Sweep

RANGE = ("low", "high", "log", "step")


def check_sweep(
    sweep: Sweep, values: Mapping[str, Any], examine: Callable[[Mapping[str, Any]], Iterable[Finding]]
) -> Iterator[Finding]:
    """Try every value of every parameter, one parameter at a time around the first value of each."""
    centre = {name: value for name, value in values.items() if name != "sweep"}
    reported = set(examine(centre))
    spaces: dict[str, list[Any]] = {}
    for name, space in sweep.parameters.items():
        try:
            spaces[name] = points(space, grid=sweep.method == "grid")
            centre = with_value(centre, _sweepable(name), spaces[name][0])
        except ValueError as error:
            spaces.pop(name, None)
            yield Finding(("sweep", "parameters", name), str(error))
    owners: dict[Key, str] = {spec_key(name): name for name in reversed(spaces)}
    for finding in [f for f in examine(centre) if f not in reported]:
        yield _moved(finding, owners.get(finding.key, next(iter(spaces), "")))
        reported.add(finding)
    for name, candidates in spaces.items():
        for value in candidates[1:]:
            for finding in [f for f in examine(with_value(centre, spec_key(name), value)) if f not in reported]:
                yield _moved(finding, name)
                reported.add(finding)


def _moved(finding: Finding, name: str) -> Finding:
    """A finding of one trial, told of the parameter that brings it about."""
    where = "" if finding.key == spec_key(name) else ".".join(map(str, finding.key)) + ": "
    return Finding(("sweep", "parameters", name), where + finding.message)


def _sweepable(name: str) -> tuple[str, ...]:
    key = spec_key(name)
    if key[0] in ("name", "sweep"):
        raise ValueError(f"{key[0]} cannot be swept")
    return key


def points(space: Any, grid: bool) -> list[Any]:
    """The values to try out: a list's all, a range's ends. Raises ValueError where the space is neither."""
    if isinstance(space, list) and space:
        return space
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"expected a list of values, or {{low: …, high: …}}, got {quote(space)}")
    for key in space:
        if key not in RANGE:
            raise ValueError(f"unknown key {key}{did_you_mean(key, RANGE) or '; known are ' + ', '.join(RANGE)}")
    low, high = _number(space, "low"), _number(space, "high")
    step = _number(space, "step") if "step" in space else None
    if low >= high or (step is not None and step <= 0):
        raise ValueError(f"expected low below high and a step above 0, got low {low}, high {high}, step {step}")
    if space.get("log") and low <= 0:
        raise ValueError(f"a logarithmic range begins above 0, got low {low}")
    if space.get("log") and step is not None:
        raise ValueError("log and step exclude each other; keep one")
    if grid and step is None:
        raise ValueError("a grid needs a list, or a range with a step; method: random and tpe take any range")
    return [low, high]


def _number(space: Mapping[str, Any], name: str) -> float:
    value = space.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name}: expected a number, got {quote(value)}")
    return value
