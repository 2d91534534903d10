"""Jinja written by functions, so that a template reads as what it says: texts, conditions, loops, variables.

Every text becomes a string literal: no engine's trimming of white space can touch it. Only what transformers' and
llama.cpp's engines do alike is used: `for`, `if`, `set`, `+`, `in`, `is string`, `.items()`, `join` and `tojson`, which
is `json.dumps(ensure_ascii=False)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_EXPRESSION = re.compile("‹(.+?)›")


def quote(text: str) -> str:
    """A string literal. Line ends are escaped, since Jinja makes the same of all kinds of them."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(escapes.get(character, character) for character in text) + "'"


def write(expression: str) -> str:
    """Writes the value of an expression."""
    return f"{{{{ {expression} }}}}"


def text(words: str) -> str:
    """Writes a text, whatever is in it."""
    return write(quote(words)) if words else ""


def filled(*patterns: str) -> str:
    """The expression for texts with others in them: `Action: ‹name›` is `'Action: ' + name`."""
    parts = (part for pattern in patterns for part in enumerate(_EXPRESSION.split(pattern)))
    return " + ".join(_bracketed(part) if number % 2 else quote(part) for number, part in parts if part)


def _bracketed(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def say(*patterns: str) -> str:
    """Writes texts with expressions in them."""
    return write(filled(*patterns))


def put(name: str, expression: str) -> str:
    """Sets a variable."""
    return f"{{% set {name} = {expression} %}}"


def when(condition: str, then: str, otherwise: str = "") -> str:
    """One of two parts of a template, the second perhaps empty."""
    return choose({condition: then}, otherwise)


def choose(cases: Mapping[str, str], otherwise: str = "") -> str:
    """The part of the first condition that holds."""
    tried = "{% el".join(f"if {condition} %}}{then}" for condition, then in cases.items())
    return f"{{% {tried}{'{% else %}' if otherwise else ''}{otherwise}{{% endif %}}"


def each(names: str, values: str, body: str) -> str:
    """A part of a template for each value."""
    return f"{{% for {names} in {values} %}}{body}{{% endfor %}}"
