"""Pages of `--help` in the user's language; English ones are click's own."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Iterable, Iterator

import click

from orchestrator.lib.language import localised

_PIECE = r"[\[（“]*(?:[\u2e80-\uffef]|[^\s\u2e80-\uffef]+)[，。；：、！？）”…]*\s*"
"""What a line may end after: a Chinese character or a word of another script, with the punctuation that follows."""


class HelpPage(click.HelpFormatter):
    """A page whose texts are translated, and wrapped where a script has no spaces to wrap at."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix or localised("Usage:"))

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{localised(heading)}：\n")

    def write_text(self, text: str) -> None:
        width = self.width - self.current_indent
        lines = "\n\n".join(_block(block, width) for block in inspect.cleandoc(text).split("\n\n")).split("\n")
        self.write("".join(f"{' ' * self.current_indent}{line}".rstrip() + "\n" for line in lines))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = list(rows)
        first = min(max(cells(name) for name, _ in rows), col_max) + col_spacing
        indent = " " * (self.current_indent + first)
        for name, text in rows:
            told = f"\n{indent}".join(_lines(_told(text), self.width - len(indent)).split("\n"))
            gap = " " * (first - cells(name)) if cells(name) <= first - col_spacing else f"\n{indent}"
            self.write(f"{'':>{self.current_indent}}{name}{gap}{told}".rstrip() + "\n")


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _block(text: str, width: int) -> str:
    """A paragraph; the lines of one that click is not to wrap stay lines."""
    if text.startswith("\b\n"):
        return "\n".join(map(localised, text.removeprefix("\b\n").split("\n")))
    return _lines(localised(" ".join(text.split())), width)


def _told(text: str) -> str:
    """What is said of an option, and its default."""
    said, bracket, rest = text.partition("  [")
    facts = [localised(fact) for fact in rest.removesuffix("]").split("; ")] if bracket else []
    return f"{localised(said)} [{'；'.join(facts)}]" if facts else localised(said)


def _lines(text: str, width: int) -> str:
    return "\n".join(_filled(re.findall(_PIECE, text), width))


def _filled(pieces: Iterable[str], width: int) -> Iterator[str]:
    """Pieces in lines of at most so many columns."""
    line = ""
    for piece in pieces:
        if line and cells(line) + cells(piece.rstrip()) > width:
            yield line.rstrip()
            line = ""
        line += piece
    yield line.rstrip()
