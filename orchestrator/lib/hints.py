"""The hints of errors in the user's own language; English where nobody has translated one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.lib.files import read_json

CATALOGUES = {"zh": Path(__file__).parent / "hints_zh.json"}
"""Language → {English hint: translation}; `{}` stands for what an error fills in, in the same order in both."""


def localised(hint: str, environment: Mapping[str, str] = os.environ) -> str:
    """The hint in the language of the environment, or as it is."""
    catalogue = CATALOGUES.get(language(environment))
    return translated(hint, read_json(catalogue)) if catalogue else hint


def language(environment: Mapping[str, str]) -> str:
    """The language of messages, such as `zh`, by the precedence of POSIX: LC_ALL, LC_MESSAGES, LANG."""
    chosen = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return re.split(r"[_.@-]", chosen)[0].lower()


def translated(hint: str, catalogue: Mapping[str, str]) -> str:
    """The translation of the template that a hint was made from; the hint itself where there is none.

    What is filled in may be a hint, too.
    """
    if hint in catalogue:
        return catalogue[hint]
    for template in sorted(catalogue, key=len, reverse=True):  # the one that says most, where several fit
        pattern = re.escape(template).replace(re.escape("{}"), "(.+)")
        if "{}" in template and (match := re.fullmatch(pattern, hint, re.DOTALL)):
            texts = catalogue[template].split("{}")
            values = [translated(value, catalogue) for value in match.groups()]
            return "".join(text + value for text, value in zip(texts, [*values, ""], strict=True))
    return hint
