"""Words that users read: they agree with their numbers, and they are the field's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lib.words import agreeing, counted, plural

ROOT = Path(__file__).parent.parent
OURS = re.compile(
    r"\b(mend(s|ed|ing)?|overrul\w+|anew|otherwise than|answers otherwise|the gate says no|bug of ours"
    r"|cannot be told from|reads itself again)\b",
    re.IGNORECASE,
)
"""Words that a reader of this field stumbles over; fix, override, again, differently, … say the same."""


def test_words_agree_with_their_number() -> None:
    assert [plural(n, "row") for n in (0, 1, 2)] == ["rows", "row", "rows"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("predicate", "of_one"),
    [
        ("have tools", "has tools"),
        ("are far longer", "is far longer"),
        ("teach an empty thought", "teaches an empty thought"),
        ("hold HTML remains", "holds HTML remains"),
        ("repeat", "repeats"),
    ],
)
def test_a_verb_agrees_with_its_number(predicate: str, of_one: str) -> None:
    assert [agreeing(n, predicate) for n in (0, 1, 2)] == [predicate, of_one, predicate]


def test_what_users_read_is_in_the_fields_words() -> None:
    assert [(where, text[:60]) for where, text in said() if OURS.search(text)] == []


def said() -> Iterator[tuple[str, str]]:
    """Every text of the code that is no docstring, `{}` for what is filled in, and every template."""
    for file in sorted((ROOT / "orchestrator").rglob("*.py")):
        module = ast.parse(file.read_text("utf-8"))
        docstrings = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
        for node in ast.walk(module):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                yield file.name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield file.name, node.value
    for file in sorted((ROOT / "templates").glob("*.j2")):
        yield file.name, file.read_text("utf-8")
