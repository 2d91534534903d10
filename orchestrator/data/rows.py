"""Data files of any kind → plain rows, one at a time.

JSON lines, CSV, Parquet and Excel need constant memory; a JSON list needs its text.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from orchestrator.lib.errors import InputError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xlsx")
_CHUNK = 1 << 20
_NULS = 0.02  # share of zero bytes that makes a file UTF-16
_EXCESSIVE = (RecursionError, ValueError)  # what Python's parser raises for JSON that is valid, but hostile
MAX_BOOK = 1 << 30  # bytes; a text of many repetitions is packed a thousandfold
_MAX_CELL = 1 << 27  # characters; the csv module stops at 131,072 unless told otherwise


class RowError(Exception):
    """Why a row must not reach training. `kind` is a stable word, the message a sentence for a person."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


Rows = Iterator[dict[str, Any] | RowError]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Returns the rows of a data file, counted from 1; a RowError stands for one that is no set of named values.

    Raises InputError if there is no such file or it is no data file.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - a name that is too long raises nothing
        raise InputError(f"no data file {str(path)!r}", "check the path; it is relative to the folder of spec.yaml")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: cannot read files ending in {suffix!r}", f"use one of {', '.join(SUFFIXES)}")
    readers = {".parquet": _parquet, ".xlsx": _excel}
    return enumerate(readers.get(suffix, _text)(path), start=1)


def _text(path: Path) -> Rows:
    reader = _csv if path.suffix.lower() in (".csv", ".tsv") else _json
    with path.open(encoding=detect_encoding(path), newline="") as file:
        yield from reader(path, file)


# ---- encodings


def detect_encoding(path: Path) -> str:
    """Returns the codec that decodes the whole file: utf-8-sig, utf-16, utf-16-le, utf-16-be or gb18030 (GBK).

    Raises InputError for any other: a wrong guess would go unnoticed. UTF-8 comes before GBK, because text in another
    encoding hardly ever passes as it.
    """
    with path.open("rb") as file:
        head = file.read(_CHUNK)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.count(0) > _NULS * len(head):  # every ASCII character of UTF-16 has one
        return "utf-16-be" if head[0::2].count(0) > head[1::2].count(0) else "utf-16-le"
    if _decodes(path, "utf-8"):
        return "utf-8-sig"
    if _looks_like_gbk(head) and _decodes(path, "gb18030"):
        return "gb18030"
    raise InputError(f"{path}: the text is neither UTF-8 nor GBK nor UTF-16", "save it as UTF-8 and try again")


def _decodes(path: Path, encoding: str) -> bool:
    try:
        with path.open(encoding=encoding, newline="") as file:
            while file.read(_CHUNK):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _looks_like_gbk(head: bytes) -> bool:
    # GBK decodes much Latin-1 by accident. Real Chinese text lies in the GB2312 block, both bytes of it >= 0xA1.
    pairs = re.findall(rb"[\x80-\xff].", head, re.DOTALL)
    common = sum(0xA1 <= first <= 0xF7 and second >= 0xA1 for first, second in pairs)
    return bool(pairs) and common >= 0.9 * len(pairs)


# ---- JSON


def _json(path: Path, file: TextIO) -> Rows:
    while (first := file.read(1)).isspace():
        pass
    file.seek(0)
    return _json_list(path, file.read()) if first == "[" else _json_lines(file)


def _json_lines(file: TextIO) -> Rows:
    for line in filter(str.strip, file):
        try:
            yield _mapping(json.loads(line))
        except json.JSONDecodeError as error:
            yield RowError("bad_json", f"not JSON: {error.msg} at character {error.pos + 1}")
        except _EXCESSIVE:
            yield RowError("bad_json", "too deeply nested, or a number of thousands of digits")


def _json_list(path: Path, text: str) -> Rows:
    # One value at a time instead of json.load: a syntax error is then an error of a row, and memory stays at the text.
    decode, at, row = json.JSONDecoder().raw_decode, _skip(text, text.index("[") + 1, " \t\r\n"), 0
    while at < len(text) and text[at] != "]":
        row += 1
        try:
            value, at = decode(text, at)
        except json.JSONDecodeError as error:
            message = f"{path}: row {row} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
            raise InputError(message, "a comma, quote or bracket is missing or too many there") from None
        except _EXCESSIVE:
            message = f"{path}: row {row} is too deeply nested, or holds a number of thousands of digits"
            raise InputError(message, "is it the right file?") from None
        yield _mapping(value)
        at = _skip(text, at, " \t\r\n,")
    if at >= len(text):
        raise InputError(f"{path}: the list ends without ']' after row {row}", "the file was cut off: copy it again")


def _skip(text: str, at: int, skipped: str) -> int:
    while at < len(text) and text[at] in skipped:
        at += 1
    return at


def _mapping(value: object) -> dict[str, Any] | RowError:
    if isinstance(value, dict):
        return value
    return RowError("not_an_object", f"a row must be an object with named values, not {type(value).__name__}")


# ---- tables


def _csv(path: Path, file: TextIO) -> Rows:
    csv.field_size_limit(_MAX_CELL)
    header_line = file.readline()
    file.seek(0)
    table = csv.reader(file, delimiter=_delimiter(header_line))
    header = _header(path, next(table, []))
    for cells in filter(None, table):  # not the blank lines
        yield _cells(header, cells)


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)


def _cells(header: list[str], cells: list[str]) -> dict[str, Any] | RowError:
    if len(cells) != len(header):
        wanted = f"{len(cells)} cells, but the header has {len(header)}"
        return RowError("column_count", f"{wanted}; put text that contains the separator in quotes")
    return dict(zip(header, cells, strict=True))


def _header(path: Path, cells: list[Any]) -> list[str]:
    names = [str(cell).strip() if cell is not None else "" for cell in cells]
    if not any(names):
        raise InputError(f"{path}: the first line has no column names", "give the columns names, e.g. prompt,response")
    named = [name for name in names if name]
    if twice := {name for name in named if named.count(name) > 1}:
        raise InputError(f"{path}: two columns are called {sorted(twice)[0]!r}", "rename or remove one of them")
    return names


def _parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=4096)
        for batch in batches:
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file: {error}", "export the file again") from None


def _excel(path: Path) -> Rows:
    from zipfile import BadZipFile, ZipFile

    import openpyxl

    try:
        with ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > MAX_BOOK:
            raise InputError(f"{path}: the workbook unpacks to {size:,} bytes", "save it as UTF-8 CSV")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, KeyError, OSError) as error:
        raise InputError(f"{path}: not an Excel workbook: {error}", "save it as .xlsx or as UTF-8 CSV") from None
    table = book.active.iter_rows(values_only=True)
    header = _header(path, list(next(table, ())))
    for cells in table:
        if any(cell is not None for cell in cells):
            yield {name: cell for name, cell in zip(header, cells, strict=False) if name}
    book.close()
