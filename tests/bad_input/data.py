"""Data files that cannot be trained on, by file name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

TURNS = [{"from": "human", "value": "这条新闻属于哪一类?"}, {"from": "gpt", "value": "体育"}]
ROWS: list[dict[str, Any]] = [
    {"conversations": [{"from": "human", "value": f"标题 {number}"}, TURNS[1]]} for number in range(12)
]

BAD_TURNS: dict[str, Any] = {
    "no answer": TURNS[:1],
    "no question": TURNS[1:],
    "empty answer": [TURNS[0], {"from": "gpt", "value": "  "}],
    "two questions in a row": [TURNS[0], TURNS[0], TURNS[1]],
    "an unknown role": [{"from": "robot", "value": "?"}, TURNS[1]],
    "null for text": [{"from": "human", "value": None}, TURNS[1]],
    "no list": "标题",
    "an empty list": [],
    "null": None,
    "a list of words": ["标题", "体育"],
}
WHOLE: dict[str, bytes] = {
    "empty.json": b"",
    "empty.jsonl": b"",
    "empty.csv": b"",
    "blank.jsonl": b"\n\n \n",
    "empty-list.json": b"[]",
    "word.json": b'"news"',
    "number.json": b"42",
    "cut.json": json.dumps(ROWS).encode()[:-20],
    "cut-utf8.json": json.dumps(ROWS, ensure_ascii=False).encode()[:75],
    "html.json": b"<!doctype html><html>404</html>",
    "lfs-pointer.json": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "zeros.json": b"\0" * 4096,
    "binary.csv": bytes(range(256)) * 16,
    "brackets.json": b"[" * 100_000,
    "braces.jsonl": b'{"a":' * 50_000 + b"\n",
    "digits.json": b"[" + b"9" * 10_000 + b"]",
    "latin-1.csv": "question,answer\ncaf\xe9,\xe9t\xe9 \xff\n".encode("latin-1"),
    "header-only.csv": b"instruction,output\n",
    "one-column.csv": "标题\n第一条\n第二条\n".encode(),
    "ragged.csv": b"instruction,output\na,b,c\nd\n" * 3,
    "open-quote.csv": b'instruction,output\n"a,b\nc,d\n',
    "no-table.parquet": b"PAR1 but not really PAR1",
    "no-book.xlsx": b"PK\x03\x04 not a book",
    "old-book.xls": b"\xd0\xcf\x11\xe0",
    "weights.safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "pickle.pt": b"\x80\x04\x95cos\nsystem\n(S'touch hacked'\ntR.",
    "unknown-columns.jsonl": b'{"foo": "a", "bar": "b"}\n' * 12,
    "too-few.json": json.dumps(ROWS[:3]).encode(),
    "nan.json": b'[{"conversations": NaN}]',
    "duplicate-keys.jsonl": b'{"instruction": "a", "output": "b", "output": ""}\n' * 12,
}


def corpus() -> Iterator[tuple[str, bytes]]:
    """(file name, content) of all of them."""
    yield from WHOLE.items()
    for number, turns in enumerate(BAD_TURNS.values()):
        rows = [*ROWS[:6], {"conversations": turns}, *ROWS[6:]]
        yield f"row-7-{number}.json", json.dumps(rows, ensure_ascii=False).encode()
        yield f"row-7-{number}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
