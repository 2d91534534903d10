"""Everything that a spec comes to: what it says, and the defaults of what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.spec.document import parse as parse_yaml
from orchestrator.spec.sections import Spec
from orchestrator.spec.validation import parse


def effective(text: str) -> dict[str, Any]:
    """Dotted key → value of a spec's text, such as `train.learning_rate`; its sweep is left out.

    Of a text that this version does not take, as one of an earlier version may be, only what it says.
    """
    from pydantic import ValidationError

    written = parse_yaml(text).value
    values = dict(written) if isinstance(written, Mapping) else {}
    try:
        spec: Spec = parse({key: value for key, value in values.items() if key != "sweep"})
    except (ValidationError, TypeError):
        return dict(_flat(values, ""))
    whole = spec.model_dump(mode="json", exclude={"sweep"})
    return dict(_flat(whole | {"train": spec.training}, ""))


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
