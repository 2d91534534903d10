"""Tokens, keys and passwords, taken out of whatever is kept or shown, and folders out of what is sent."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

HIDDEN = "[hidden]"
SHORTEST = 6
"""Characters; a shorter value stands in too many harmless places to be taken out everywhere."""
LARGEST_LOG = 1 << 26
"""Bytes; a log beyond that is not a log any more, and is left alone."""
NAMED = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:API|ACCESS|PRIVATE|AUTH)_?KEY|_KEY$|_PAT$", re.IGNORECASE
)
FORMS = re.compile(
    r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"  # user:password of a URL
    r"|\b(?:hf_[A-Za-z0-9]{20,}|sk-(?=[a-z-]*[A-Z0-9])[\w-]{20,}|AKIA[A-Z0-9]{12,})"  # tokens with a maker's mark
    r"|\b(?:gh[opsu]_|github_pat_|glpat-|xox[bp]-)[\w-]{12,}"
    r"|(?<=Bearer )[A-Za-z0-9._~+/-]{8,}"
)


PATHS = re.compile(r"(?<![\w.:/~…-])(?:/[^\s/'\"`,;:|()<>\[\]{}]+){2,}")
"""An absolute path of two parts or more; `and/or`, `/think` and the address of a website are none."""


def without_folders(text: str) -> str:
    """The text with absolute paths cut down to their last part: where things lie is nobody's business elsewhere."""
    return PATHS.sub(lambda found: f"…/{found[0].rpartition('/')[2]}", text)


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without the values of variables that are named like secrets, and without what looks like one."""
    for value in _values(environment):
        text = text.replace(value, HIDDEN)
    return FORMS.sub(HIDDEN, text)


def holds_token(text: str) -> bool:
    """Whether a text has something in it that looks like a token, or a URL with a password."""
    return FORMS.search(text) is not None


def clean(log: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Take secrets out of a finished log; one without any is not written."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LARGEST_LOG:
            return
        text = log.read_bytes().decode("utf-8", "surrogateescape")
        if (kept := redacted(text, environment)) != text:
            log.write_bytes(kept.encode("utf-8", "surrogateescape"))


def _values(environment: Mapping[str, str]) -> list[str]:
    """The longest first: one may contain another."""
    found = {value.strip() for name, value in environment.items() if NAMED.search(name)}
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)
