"""The rows every metric starts from: what was asked, what was expected, what came back, thoughts set apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.evaluation.calls import CallReader, Calls, expected_calls, from_json
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_text


@dataclass(frozen=True, slots=True)
class Row:
    """One held-out row with one model's answer."""

    id: str
    prompt: str
    label: str
    prediction: str
    calls: Calls | None = None
    """The calls of tools in the prediction; None where nobody looked for them."""
    expected: Calls | None = None
    """Those in the label."""

    def with_calls(self, reader: CallReader) -> Row:
        """The row with the calls that a template's reader finds in both texts, where they are not known yet."""
        calls = reader.read(self.answer) if self.calls is None else self.calls
        expected = expected_calls(self.truth, reader) if self.expected is None else self.expected
        return replace(self, calls=calls, expected=expected)

    @property
    def answer(self) -> str:
        """The prediction without reasoning and surrounding white space: what is scored."""
        return strip_thinking(self.prediction)

    @property
    def truth(self) -> str:
        """The label without reasoning and surrounding white space; LLaMA-Factory's ends with template text."""
        return strip_thinking(self.label)


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file with `label` and `prediction` (or LLaMA-Factory's `predict`).

    `id` defaults to the row's number, counted from 1, and `prompt` to nothing: no metric needs it. `calls` and
    `expected`, lists of {name, arguments}, are there where tools were offered.
    Raises InputError, naming file and line, for a file that is missing or blank, for a row that is not one, and for two
    with the same id.
    """
    records = read_records(path)
    rows = [_row(record, f"{path}, line {line}", number) for number, (line, record) in enumerate(records, 1)]
    if not rows:
        raise InputError(f"{path} holds no rows", "Expected one JSON object a line: {id, prompt, label, prediction}.")
    _require_own_ids(path, rows, [line for line, _ in records])
    return rows


def read_records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a JSONL file with their line numbers; blank lines are skipped."""
    try:
        # not splitlines(): a text may hold U+2028 and its kin unescaped
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Name a JSONL file of predictions.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start})", "Save it as UTF-8.") from error
    return [(n, _object(text, f"{path}, line {n}")) for n, text in enumerate(lines, 1) if text.strip()]


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The same without the numbers."""
    return [record for _, record in read_records(path)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a predictions file in one step."""
    write_records(path, map(_record, rows))


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSONL file in one step."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _record(row: Row) -> dict[str, Any]:
    """A row as it is written; what nobody looked for is left out."""
    return {name: value for name, value in asdict(row).items() if value is not None}


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg}): {text[:60]!r}", "Write one JSON object a line.") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: a JSON object is expected, not {text[:60]!r}", "Write one JSON object a line.")
    return record


def _row(record: dict[str, Any], where: str, number: int) -> Row:
    record = {"id": number, "prompt": "", **record}
    if "prediction" not in record and "predict" in record:
        record["prediction"] = record["predict"]
    for key in ("label", "prediction"):
        if key in record and record[key] is None:
            raise InputError(f"{where}: no {key!r}, for it is null", 'Write an answer that is missing as "".')
        if key not in record:
            raise InputError(
                f"{where}: no {key!r} among {', '.join(map(repr, record))}", "Each row needs label and prediction."
            )
    row = Row(
        str(record["id"]),
        str(record["prompt"]),
        str(record["label"]),
        str(record["prediction"]),
        calls=_calls(record, "calls", where),
        expected=_calls(record, "expected", where),
    )
    if not row.truth:
        raise InputError(f"{where}: the label is empty", "A row without an expected answer cannot be scored.")
    return row


def _calls(record: Mapping[str, Any], key: str, where: str) -> Calls | None:
    if record.get(key) is None:
        return None
    if (calls := from_json(record[key])) is None:
        raise InputError(f"{where}: {key!r} are no calls", "Write a list of {name, arguments}, which may be empty.")
    return calls


def _require_own_ids(path: Path, rows: list[Row], lines: list[int]) -> None:
    first: dict[str, int] = {}
    for row, line in zip(rows, lines, strict=True):
        if (before := first.setdefault(row.id, line)) != line:
            raise InputError(
                f"{path}: lines {before} and {line} have the same id {row.id!r}", "Every row needs an id of its own."
            )


# The pairs that LLaMA-Factory's templates use (`thought_words` in its data/template.py).
_PAIRS = (
    ("<think>", "</think>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)


def strip_thinking(text: str) -> str:
    """The answer alone, without surrounding white space.

    Besides whole blocks it removes one that never closes (the answer ran out of tokens) and everything up to an
    orphan closing tag (the opening one was part of the prompt).
    """
    for opening, closing in _PAIRS:
        if opening in text or closing in text:
            text = _strip(text, opening, closing)
    return text.strip()


def split_thinking(text: str) -> tuple[str, str]:
    """What was thought, and the answer, both without tags and surrounding white space.

    Servers that tell the two apart trim them in ways of their own; so compared are these two.
    """
    for opening, closing in _PAIRS:
        if opening in text or closing in text:
            return text.rpartition(opening)[2].partition(closing)[0].strip(), strip_thinking(text)
    return "", text.strip()


def has_thinking(text: str) -> bool:
    """Whether `strip_thinking` would take reasoning away."""
    return any(tag in text for pair in _PAIRS for tag in pair)


def shown(text: str) -> str:
    """A text in which thoughts are part of the answer, as who reads all of it sees them: without the tags alone."""
    for tag in (tag for pair in _PAIRS for tag in pair):
        text = text.replace(tag, "\n")
    return text.strip()


def _strip(text: str, opening: str, closing: str) -> str:
    text = re.sub(re.escape(opening) + ".*?" + re.escape(closing), "", text, flags=re.DOTALL)
    text = text.rpartition(closing)[2]
    return text.partition(opening)[0]
