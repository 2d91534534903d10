"""The console that results and progress are printed on: it says what it is given in the user's language."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.lib.language import localised


class LocalConsole(Console):
    """A console that translates texts and the headings of tables; cells hold the user's own words and stay."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(in_own_language, objects), **options)


def in_own_language(shown: Any) -> Any:
    """What is to be printed, translated; as it is where there is nothing to translate."""
    match shown:
        case str():
            return localised(shown)
        case Text():
            said = localised(shown.plain)
            return shown if said == shown.plain else Text(said, style=shown.style)
        case Padding():
            shown.renderable = in_own_language(shown.renderable)
        case Table():
            for column in shown.columns:
                column.header = in_own_language(column.header)
    return shown
