"""YAML text → values and lines."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.spec.document import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5.0e-4", 5e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-0.0", -0.0),
        ("+3", 3),
        ("007", 7),
        ("0o17", 15),
        ("0x1f", 31),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("", None),
        ("~", None),
        ("null", None),
        ("None", "None"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("1e", "1e"),
        ("0b1", "0b1"),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!float 5.", 5.0),
        ("新闻分类：体育", "新闻分类：体育"),
        ("<<", "<<"),
        ("=", "="),
        ("[1, [2], {a: 3}]", [1, [2], {"a": 3}]),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = parse(f"key: {text}").value["key"]
    assert (parsed, type(parsed)) == (value, type(value))


def test_lines_are_those_of_the_keys() -> None:
    document = parse("# first\na:\n  b: 1\n  c:\n    - x\n    - y: 2\nd: |\n  text\n\ne: 5\n")
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "y"): 6,
        ("d",): 7,
        ("e",): 10,
    }


def test_windows_line_ends_count_once() -> None:
    assert parse("a: 1\r\nb: 2\r\nc: 3\r\n").lines == {(): 1, ("a",): 1, ("b",): 2, ("c",): 3}


def test_an_alias_is_the_same_value_twice() -> None:
    assert parse("a: &x [1, 2]\nb: *x").value == {"a": [1, 2], "b": [1, 2]}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a:\n\tb: 1", 2, "a tab where YAML wants spaces"),
        ("a: 1\nb: c: d", 2, "a colon inside a text; put the text in quotes"),
        ("a: 1\nb: [1,\n2", 2, "a bracket that is not closed"),
        ("a: 1\nb: 'x\ny: 2", 2, "a quote that is not closed"),
        ("a: 1\n---\nb: 1", 2, "a second document begins"),
        ("a: 1\nb\nc: 1", 3, "a key without a colon"),
        ("a: 1\na: 2", 2, "given twice, here and in line 1"),
        ("a: 1\nb: *nobody", 2, "undefined alias 'nobody'"),
        ("a: &x [*x]", 1, "an alias that contains itself"),
        (BOMB, 1, "too many values"),
        ("a: " + "[" * 200 + "]" * 200, 1, "too deeply nested"),
        ("a: " + "[" * 5000, 1, "too deeply nested"),
        ("- " * 3000 + "x", 1, "too deeply nested"),
        ("a: 1\nb: \x00", 2, "the character U+0000 is not allowed"),
        ('a: 1\nb: "\\0"', 2, "the character U+0000 is not allowed"),
        ('a: "\\ud83d"', 1, "the character U+D83D is not allowed"),
        ('a: "\\UFFFFFFFF"', 1, "not valid YAML"),
        ("a: .inf", 1, ".inf is not a usable number"),
        ("a: -.INF", 1, "-.INF is not a usable number"),
        ("a: .nan", 1, ".nan is not a usable number"),
        ("a: 1e999", 1, "1e999 is not a usable number"),
        ("a: " + "9" * 5000, 1, "is not a usable number"),
        ("a: !!python/object/apply:os.system [ls]", 1, "the tag !!python/object/apply:os.system is not allowed"),
        ("a: !!binary aGk=", 1, "the tag !!binary is not allowed"),
        ("a: !!set {x}", 1, "the tag !!set is not allowed"),
        ("a: !ref x", 1, "the tag !ref is not allowed"),
        ("a: !!int x", 1, "the tag !!int is not allowed"),
        ("? [a]\n: 1", 1, "a key must be a word"),
        ("a: @x", 1, "'@'"),
        ("a: %x", 1, "'%'"),
    ],
)
def test_what_is_no_spec_at_all(text: str, line: int, message: str) -> None:
    (finding, *_) = parse(text).findings
    assert message in finding.message
    assert finding.line == line


def test_the_first_of_two_equal_keys_counts() -> None:
    assert parse("a: 1\nb: 2\na: 3").value == {"a": 1, "b": 2}
