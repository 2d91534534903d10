"""The texts of the code that people read: `python scripts/messages.py` lists those that have no translation.

Each is printed as the line to add to orchestrator/lib/zh/ROOM.json, with its place in the code; write the Chinese, or
null for a text that no person reads. `--write` adds them as null, for a text editor to go through.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import click

from orchestrator.lib import words

ROOT = Path(__file__).parent.parent
CODE = ROOT / "orchestrator"
PROSE = re.compile(r"[A-Za-z]{2,}[,;:]? [A-Za-z(`'{]|\} [a-z]{2,}|[a-z]{2,}[:,;]? \{|^[A-Z][a-z]+ ")
"""Two words, or a word beside what is filled in."""
NOT_PROSE = re.compile(r"\{%|\{\{(?!\})|</|^\s*(?:select|insert|delete|pragma|create|begin) ", re.ASCII)
GAPS = re.compile(r"%[srd]|\{[a-z_]+:[a-z]\}|\{min_length\}|\{max_length\}")
"""What is filled into a text later, as `%` and `str.format` write it."""
ENGLISH = (
    "chat_template/jinja.py", "chat_template/syntax.py", "chat_template/tool_cases.py",  # what models read
    "chat_template/tool_formats.py",
    "report/answers.py", "report/card.py", "report/charts.py", "report/overview.py",  # pages are whole in English
    "report/run_page.py", "report/sweep_page.py", "serving/openai_server/", "spec/reference.py", "ui/",
)  # fmt: skip
"""Where nothing but errors is translated."""
TO_PROGRAMMERS = (
    "Arguments take", "Boolean option", "Choice(", "Could not determine", "DeprecationWarning", "Invalid start",
    "Name ", "No options defined", "Unknown color",
)  # fmt: skip
"""How click's texts begin that a mistake in our code would show."""
AGREE = ("agreeing", "counted", "plural")
"""The functions of orchestrator.lib.words."""
ERRORS = re.compile(r"(?:Error|Interrupted|Diverged)$")


@dataclass(frozen=True, slots=True)
class Message:
    """A template of a text, and where the code has it."""

    text: str
    room: str
    place: str


@cache
def messages() -> tuple[Message, ...]:
    """Every template, once for each room."""
    found = {(one.room, one.text): one for one in (*of_code(), *of_commands())}
    return tuple(found.values())


def missing(known: dict[str, Any]) -> list[Message]:
    """The templates that no catalogue has."""
    return [one for one in messages() if one.text not in known]


def of_commands() -> Iterator[Message]:
    """What `--help` of every command says: its text, paragraph by paragraph, and its options."""
    from orchestrator.cli import COMMANDS, GROUPS, cli

    for text in (*GROUPS, *(line for _, line in COMMANDS.values())):
        yield Message(text, "help", "orchestrator/cli/__init__.py")
    for command in every_command(cli, click.Context(cli)):
        place = f"--help of {command.name}"
        for paragraph in paragraphs(command.help or ""):
            yield Message(paragraph, "help", place)
        for parameter in command.params:
            yield from (Message(text, "help", place) for text in (getattr(parameter, "help", None),) if text)


def every_command(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    """A command and all below it."""
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from every_command(below, context)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a help text, each in one line; examples and tables are to be typed, not read."""
    import inspect

    blocks = inspect.cleandoc(text).split("\n\n")
    return [" ".join(block.split()) for block in blocks if not block.startswith(("Example: ", "\b"))]


def of_click() -> list[str]:
    """The texts of click itself that a user of a command line meets."""
    folder = Path(click.__file__).parent
    calls = [
        node
        for name in ("core", "decorators", "exceptions", "formatting", "parser", "termui", "types")
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _name(node.func) in ("_", "ngettext")
    ]
    told = [part.value for call in calls for part in call.args if isinstance(part, ast.Constant)]
    found = (re.sub(r"\{\w+(?:!r)?\}", "{}", text) for text in told if isinstance(text, str))
    return [text for text in dict.fromkeys(found) if not text.startswith(TO_PROGRAMMERS)]


def of_code() -> Iterator[Message]:
    """Every text in the sources that reads as one."""
    for file in sorted(CODE.rglob("*.py")):
        name = file.relative_to(CODE).as_posix()
        module = ast.parse(file.read_text(encoding="utf-8"))
        room = name.partition("/")[0]
        for node, errors in texts(module, everything=not name.startswith(ENGLISH)):
            for text in said(node, module):
                text = GAPS.sub("{}", text).strip()
                if is_prose(text, errors):
                    yield Message(text, room, f"orchestrator/{name}:{node.lineno}")


def is_prose(text: str, is_error: bool) -> bool:
    """Whether a text has words in it that a person reads; an error's may be one word."""
    plain = text.replace("{}", "")
    if NOT_PROSE.search(text) or not re.search("[A-Za-z]{2}", plain):
        return False
    return is_error or bool(PROSE.search(text))


def texts(module: ast.Module, everything: bool) -> Iterator[tuple[ast.expr, bool]]:
    """The outermost expressions that are texts, and whether they are an error's."""
    skipped = {id(part) for node in ast.walk(module) for part in _not_said(node)}
    errors = {
        id(text)
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and ERRORS.search(_name(node.func))
        for text in (*node.args, *(word.value for word in node.keywords))
    }
    waiting: list[tuple[ast.AST, bool]] = [(module, False)]
    while waiting:
        node, inside = waiting.pop()
        inside = inside or id(node) in errors
        if id(node) in skipped:
            continue
        if isinstance(node, ast.expr) and _is_text(node):
            if everything or inside:
                yield node, inside
            if isinstance(node, ast.JoinedStr):
                waiting += [(part.value, inside) for part in node.values if isinstance(part, ast.FormattedValue)]
            elif isinstance(node, ast.BinOp):
                waiting += [(part, inside) for part in _added(node) if not _is_text(part)]
        else:
            waiting += [(below, inside) for below in ast.iter_child_nodes(node)]


def _not_said(node: ast.AST) -> Sequence[ast.AST]:
    """Docstrings, help of options (read from the commands), patterns, annotations."""
    match node:
        case ast.Module(body=body) | ast.ClassDef(body=body) | ast.FunctionDef(body=body):
            return [line for line in body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)]
        case ast.Call():
            words = [word.value for word in node.keywords if word.arg in ("help", "metavar")]
            return [*node.args, *words] if _name(node.func) in ("compile", "getattr", "Literal") else words
        case ast.Subscript(slice=key):
            return [key]
        case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=annotation) if annotation:
            return [annotation]
    return []


def _name(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and any(map(_is_text, (node.left, node.right)))
    if isinstance(node, ast.Call):
        return _name(node.func) in AGREE
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _added(node: ast.expr) -> list[ast.expr]:
    return [*_added(node.left), *_added(node.right)] if isinstance(node, ast.BinOp) and _is_text(node) else [node]


def said(node: ast.expr, module: ast.Module) -> list[str]:
    """The templates that an expression may become: `{}` for what is filled in, each of two words that are chosen."""
    match node:
        case ast.Constant(str(text)):
            return [text]
        case ast.JoinedStr(parts):
            return ["".join(words) for words in product(*(_filled_in(part, module) for part in parts))]
        case ast.BinOp():
            return ["".join(words) for words in product(*(said(part, module) or ["{}"] for part in _added(node)))]
        case ast.IfExp():
            return said(node.body, module) + said(node.orelse, module)
        case ast.Call(args=[_, one, *more]) if _name(node.func) in AGREE:
            return [_form(_name(node.func), text, *more) for text in said(one, module)]
    return []


def _form(function: str, text: str, many: ast.expr | None = None) -> str:
    """What orchestrator.lib.words makes of a word for several; the catalogue knows what it makes of it for one."""
    others = [many.value] if isinstance(many, ast.Constant) else []
    return re.sub(r"^2 ", "{} ", getattr(words, function)(2, text, *others))


def _filled_in(part: ast.expr, module: ast.Module) -> list[str]:
    if not isinstance(part, ast.FormattedValue):
        return said(part, module)
    if isinstance(part.value, ast.Call) and _name(part.value.func) in AGREE:
        return said(part.value, module) or ["{}"]
    named = _assigned(part.value.id, module) if isinstance(part.value, ast.Name) else [part.value]
    if named and all(
        isinstance(value, ast.IfExp) and _is_word(value.body) and _is_word(value.orelse) for value in named
    ):
        return [text for value in named for text in said(value, module)]
    return ["{}"]


def _assigned(name: str, module: ast.Module) -> list[ast.expr]:
    found = (node for node in ast.walk(module) if isinstance(node, ast.Assign))
    return [node.value for node in found if any(getattr(target, "id", "") == name for target in node.targets)]


def _is_word(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(re.fullmatch("[a-z]*", node.value))


def catalogues() -> dict[str, Any]:
    """All entries of the Chinese catalogues."""
    from orchestrator.lib.files import read_json
    from orchestrator.lib.language import CATALOGUES

    return {text: said for file in sorted(CATALOGUES["zh"].glob("*.json")) for text, said in read_json(file).items()}


def add(found: Sequence[Message]) -> None:
    """Add messages to the catalogues of their rooms, as null."""
    from orchestrator.lib.files import read_json, write_text

    for room in sorted({one.room for one in found}):
        file = CODE / f"lib/zh/{room}.json"
        entries = read_json(file) if file.is_file() else {}
        entries |= {one.text: None for one in found if one.room == room}
        write_text(file, json.dumps(entries, ensure_ascii=False, indent=2) + "\n")


def lines(found: Sequence[Message]) -> list[str]:
    """What to add, and where."""
    quoted = [(one, json.dumps(one.text, ensure_ascii=False)) for one in found]
    return [f"orchestrator/lib/zh/{one.room}.json: {text}: null  # {one.place}" for one, text in quoted]


if __name__ == "__main__":
    lacking = missing(catalogues())
    print("\n".join(lines(lacking)))
    if "--write" in sys.argv:
        add(lacking)
    sys.exit(bool(lacking) and "--write" not in sys.argv)
