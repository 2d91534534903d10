"""Which language a person reads, and a text in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

CATALOGUES = {"zh": Path(__file__).parent / "zh"}
"""Language → a folder of catalogues, one for each room: {English template: translation, or null}.

`{}` stands for what is filled in, in the same order in both, or by number in the translation: `{1}` is the second.
Null: a text of the code that no person reads.
"""


def localised(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text in the language of the environment, or as it is."""
    folder = CATALOGUES.get(language(environment))
    if folder is None:
        return text
    from orchestrator.lib.translate import catalogue  # an English `--help` needs none

    return catalogue(folder).translated(text)


def language(environment: Mapping[str, str]) -> str:
    """The language of messages, such as `zh`, by the precedence of POSIX: LC_ALL, LC_MESSAGES, LANG."""
    chosen = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return re.split(r"[_.@-]", chosen)[0].lower()


def translates(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a person reads anything but English."""
    return language(environment) in CATALOGUES
