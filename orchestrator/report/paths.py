"""Texts of a machine made fit to be sent: its folders are nobody else's business."""

from __future__ import annotations

import re

_ABSOLUTE = re.compile(r"(?<![\w.:/~<-])(?:[A-Za-z]:)?/(?:[^\s/'\"<>:,;=|()\[\]{}`]+/)+([^\s/'\"<>:,;=|()\[\]{}`]*)")
"""A path from the root with at least one folder; not a part of a URL or of a relative path."""


def without_folders(text: str) -> str:
    """The text with each absolute path cut down to `…/` and its last name."""
    return _ABSOLUTE.sub(r"…/\1", text)
