"""Data files of any kind → plain rows, one at a time.

JSON lines, CSV, Parquet and Excel need constant memory; a JSON list needs its text.
"""

from __future__ import annotations

import csv
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO
from zipfile import BadZipFile, ZipFile

from orchestrator.data.encoding import detect_encoding
from orchestrator.lib.errors import InputError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xlsx")
_SPACE = " \t\r\n"
_EXCESSIVE = (RecursionError, ValueError)  # what Python's parser raises for JSON that is valid, but hostile
MAX_BOOK = 1 << 30  # bytes; a text of many repetitions is packed a thousandfold
# what reading a damaged workbook may raise: of its archive, of its parts, of what openpyxl expects in them
_NO_BOOK = (BadZipFile, zlib.error, SyntaxError, AttributeError, LookupError, OSError, TypeError, ValueError)
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
    at, row = text.index("["), 0
    while at < len(text):
        at = _skip(text, at + 1, _SPACE)
        while at < len(text) and text[at] != "]":
            row += 1
            value, at = _decoded(path, text, at, row)
            yield _mapping(value)
            at = _skip(text, at, f"{_SPACE},")
        if at >= len(text):
            raise InputError(
                f"{path}: the list ends without ']' after row {row}", "the file was cut off: copy it again"
            )
        at = _skip(text, at + 1, _SPACE)
        if at < len(text) and text[at] != "[":  # another list, as in files that were joined, is read too
            message = f"{path}: no list follows the ']' after row {row}, but {text[at : at + 20]!r}"
            raise InputError(message, "put all rows into one list, or each into a line of a .jsonl file")


def _decoded(path: Path, text: str, at: int, row: int) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends."""
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        message = f"{path}: row {row} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise InputError(message, "a comma, quote or bracket is missing or too many there") from None
    except _EXCESSIVE:
        message = f"{path}: row {row} is too deeply nested, or holds a number of thousands of digits"
        raise InputError(message, "is it the right file?") from None


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
    table = _records(path, file, _delimiter(header_line))
    header = _header(path, next(table, []))
    for cells in table:
        yield cells if isinstance(cells, RowError) else _cells(header, cells)


def _records(path: Path, file: TextIO, delimiter: str) -> Iterator[Any]:
    """The cells of each line that is not blank. A line whose quotes are wrong is a RowError: a reader that is not
    strict would drop quotes (`"Titanic" sinks,Film`), or take all up to the next one for one cell."""
    lines: list[str] = []

    def noted() -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    table = csv.reader(noted(), delimiter=delimiter, strict=True)
    while True:
        lines.clear()
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield _misquoted(path, table.line_num, lines, error)
        else:
            yield from [cells] if cells else []


def _misquoted(path: Path, last: int, lines: list[str], error: csv.Error) -> RowError:
    """Of one line with all its quotes in pairs; else nobody knows where its row ends: raises InputError."""
    hint = 'quote text with quotes in it, and double these: """Titanic"" sinks",Film'
    if len(lines) > 1:
        raise InputError(f"{path}: the quotes in lines {last - len(lines) + 1} to {last} do not match: {error}", hint)
    if last == 1 or lines[0].count('"') % 2:
        raise InputError(f"{path}: the quotes in line {last} do not match: {error}", hint)
    return RowError("bad_quotes", f"the quotes in line {last} do not match; {hint}")


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)


def _cells(header: list[str], cells: list[str]) -> dict[str, Any] | RowError:
    if len(cells) != len(header):
        wanted = f"{len(cells)} cells, but the header has {len(header)}"
        return RowError("column_count", f"{wanted}; put text that contains the separator in quotes")
    return _named(header, cells)


def _named(header: list[str], cells: Sequence[Any]) -> dict[str, Any]:
    """Name → cell; what has no name, such as the numbers that pandas writes in front of its rows, is no column."""
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


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
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file: {error}", "export the file again") from None


def _excel(path: Path) -> Rows:
    try:
        table = _first_sheet(path)
        header = _header(path, list(next(table, ())))
        for cells in table:
            if any(cell is not None for cell in cells):
                yield _named(header, [*cells, *[None] * (len(header) - len(cells))])
    except _NO_BOOK as error:
        raise InputError(f"{path}: not an Excel workbook: {error}", "save it as .xlsx or as UTF-8 CSV") from None


def _first_sheet(path: Path) -> Iterator[tuple[Any, ...]]:
    """The cells of the first sheet, row by row; a row ends with its last cell. Charts are no sheets."""
    import openpyxl

    with ZipFile(path) as parts:
        size = sum(part.file_size for part in parts.infolist())
    if size > MAX_BOOK:
        raise InputError(f"{path}: the workbook unpacks to {size:,} bytes", "save it as UTF-8 CSV")
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    if not book.worksheets:
        raise InputError(f"{path}: the workbook holds charts only", "save the sheet with the rows")
    sheet = book.worksheets[0]  # not the one that was looked at last
    sheet.reset_dimensions()  # what streaming writers say of its size (`A1`) is wrong
    yield from sheet.iter_rows(values_only=True)
    book.close()
