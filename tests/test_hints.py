"""Hints in the user's language: every hint that the code can give has its Chinese."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from orchestrator.lib import errors, hints
from orchestrator.lib.files import read_json
from tests.conftest import run_tool

ROOT = Path(hints.__file__).parent.parent
ERRORS = {name for name in vars(errors) if name.endswith(("Error", "Interrupted", "Diverged"))}
CHINESE = {"LANG": "zh_CN.UTF-8"}
CATALOGUE: dict[str, str] = read_json(hints.CATALOGUES["zh"])


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "de_DE"}, "de"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LANG": "C"}, "c"),
        ({}, ""),
    ],
)
def test_the_language_is_that_of_posix(environment: dict[str, str], language: str) -> None:
    assert hints.language(environment) == language


def test_a_hint_keeps_what_was_filled_in() -> None:
    assert hints.localised("Choose one of: {a}, b.", CHINESE) == "可选：{a}, b。"
    assert hints.localised("Nobody translated this.", CHINESE) == "Nobody translated this."
    assert hints.localised("Choose one of: a.", {"LANG": "en_GB"}) == "Choose one of: a."
    both = "This run has: f16, {}. `orchestrator export` makes the others."
    assert hints.localised(both, CHINESE) == "这次运行有：f16, {}。其余的可用 `orchestrator export` 生成。"
    nested = hints.localised("name it in the spec: data: {columns: {prompt: COLUMN}}", CHINESE)
    assert nested == "请在 spec 中写明：data: {columns: {prompt: COLUMN}}"


def test_an_error_is_hinted_in_chinese(tmp_path: Path) -> None:
    done = run_tool(("check", "无.yaml"), tmp_path, {"LANG": "zh_CN.UTF-8", "LC_ALL": ""})
    assert (done.code, "请指定一个 spec 文件" in done.stderr) == (2, True)


def test_every_hint_is_translated() -> None:
    assert [hint for hint in every_hint() if hint not in CATALOGUE] == []


def test_every_translation_is_of_a_hint_that_exists() -> None:
    assert [hint for hint in CATALOGUE if hint not in every_hint()] == []


def test_translations_fill_in_as_much_as_the_hints() -> None:
    assert [hint for hint, chinese in CATALOGUE.items() if hint.count("{}") != chinese.count("{}")] == []


def test_a_translation_keeps_what_is_to_be_typed() -> None:
    typed = {hint: hint.split("`")[1::2] for hint in CATALOGUE}
    assert [hint for hint, parts in typed.items() if any(part not in CATALOGUE[hint] for part in parts)] == []


# ---- what the sources say


@cache
def every_hint() -> tuple[str, ...]:
    """The hint of every error that is raised, with {} for what is filled in, where it can be told from the source."""
    found = (hint for file in sorted(ROOT.rglob("*.py")) for hint in hints_of(ast.parse(file.read_text("utf-8"))))
    return tuple(dict.fromkeys(hint for hint in found if hint.strip("{} ")))


def hints_of(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS:
            named = [word.value for word in node.keywords if word.arg == "hint"]
            for hint in (*node.args[1:2], *named):
                yield from said(hint, module)


def said(node: ast.expr, module: ast.Module) -> list[str]:
    """What an expression may say; nothing where that is decided elsewhere, as in `error.hint`."""
    match node:
        case ast.Constant(str(text)):
            return [text]
        case ast.JoinedStr(parts):
            return ["".join(words) for words in product(*(filled_in(part, module) for part in parts))]
        case ast.IfExp():
            return said(node.body, module) + said(node.orelse, module)
        case ast.BoolOp(values=values):
            return [text for value in values for text in said(value, module)]
        case ast.Name(name):
            return [text for value in assigned(name, module) for text in said(value, module)]
        case ast.Dict(values=values):
            return [text for value in values for text in said(value, module)]
        case ast.Call(func=ast.Attribute(value=ast.Name() as table, attr="get"), args=[_, default]):
            return said(table, module) + said(default, module)
        case ast.Call(func=ast.Name(name)):
            return [text for value in returned(name, module) for text in said(value, module)]
    return []


def filled_in(part: ast.expr, module: ast.Module) -> list[str]:
    if not isinstance(part, ast.FormattedValue):
        return said(part, module)
    name = getattr(part.value, "id", None)
    values = list(assigned(name, module)) if name else [part.value]
    words = all(isinstance(value, ast.IfExp) for value in values)  # such as "it" if there is one, else "them"
    return [text for value in values for text in said(value, module)] if values and words else ["{}"]


def assigned(name: str, module: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            yield node.value


def returned(name: str, module: ast.Module) -> Iterator[ast.expr]:
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef) and function.name == name:
            yield from (node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value)
