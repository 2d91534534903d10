"""Values written into the text of a spec by their dotted names, with its comments and its order kept."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from orchestrator.lib.errors import InputError
from orchestrator.lib.section import Section
from orchestrator.spec.sections import DEFAULTS, Spec


def edited(text: str, changes: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """The text with values set by dotted key, and without certain keys or whole sections.

    None takes a key out, but for one of `train:` whose absence would mean a default of ours: that is then null.
    Raises InputError where a key leads through something that is no section.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    if re.search(r"^ +- ", text, re.MULTILINE):
        yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for name, value in changes.items():
        if value is not None or _has_default(name):
            _set(document, name.split("."), _inline(value), name)
    for name in (*without, *(name for name, value in changes.items() if value is None and not _has_default(name))):
        _take_out(document, name.split("."))
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def _set(document: Any, path: list[str], value: Any, name: str) -> None:
    section = document
    for part in path[:-1]:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise InputError(f"{name} cannot be set: {part} is not a section", "Name a key of spec.yaml.")
    if path[-1] in section or not section:
        section[path[-1]] = value
    else:
        _append(section, path[-1], value)


def _has_default(name: str) -> bool:
    section, _, key = name.partition(".")
    return section == "train" and key in DEFAULTS


def _take_out(document: Any, path: list[str]) -> None:
    section = document
    for part in path[:-1]:
        section = section.get(part) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section.pop(path[-1], None)


def _inline(value: Any) -> Any:
    """A list as `[a, b]`, which leaves the comments around it in place."""
    from ruamel.yaml.comments import CommentedSeq

    if not isinstance(value, (list, tuple)):
        return value
    items = CommentedSeq(value)
    items.fa.set_flow_style()
    return items


def _append(section: Any, key: str, value: Any) -> None:
    """Add a key; what stands below the last one (blank lines, the comment of the next section) stays below."""
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    last = next(reversed(section))
    section[key] = value
    comment = section.ca.items.get(last, [None] * 4)[2] if hasattr(section, "ca") else None
    if comment is not None:
        beside, _, below = comment.value.partition("\n")
        comment.value = f"{beside}\n"
        section.ca.items[key] = [None, None, CommentToken(f"\n{below}", CommentMark(0), None), None]


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
