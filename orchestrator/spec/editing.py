"""Values written into the text of a spec, with its comments and its order kept."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.errors import InputError


def edited(text: str, changes: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """The text with values set by dotted key (None takes a key out) and whole sections left out.

    Raises InputError where a key leads through something that is no section.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    if re.search(r"^ +- ", text, re.MULTILINE):
        yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    for section in without:
        document.pop(section, None)
    for name, value in changes.items():
        _set(document, name.split("."), _inline(value), name)
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
    if value is None:
        section.pop(path[-1], None)
    elif path[-1] in section or not section:
        section[path[-1]] = value
    else:
        _append(section, path[-1], value)


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
