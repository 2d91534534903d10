"""Keys of a spec, by their dotted names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from orchestrator.spec.sections import Section, Spec


def spec_key(name: str) -> tuple[str, ...]:
    """The path of a dotted name. A name that is no section of a spec is short for a training argument."""
    parts = tuple(name.split("."))
    return parts if len(parts) > 1 or parts[0] in Spec.model_fields else ("train", *parts)


def section_at(key: Sequence[str | int]) -> type[Section] | None:
    """The section that a path leads to, or None where it leads to anything else."""
    section: type[Section] | None = Spec
    for part in key:
        field = section.model_fields.get(str(part)) if section else None
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
    return section


def with_value(values: Mapping[str, Any], key: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of a spec's values with one of them set. Raises ValueError where the path leads through a plain value."""
    head, rest = key[0], key[1:]
    if not rest:
        return {**values, head: value}
    inner = values.get(head)
    if inner is not None and not isinstance(inner, Mapping):
        raise ValueError(f"{head} is not a section")
    return {**values, head: with_value(inner or {}, rest, value)}
