"""What run.json says, and in which types: checked once, where it is read, so that nobody else has to doubt it.

The last entry of a record is a digest of every byte above it. Who changes the record on purpose can write a new digest,
too: it tells accidents and edits, and only a signature (`orchestrator verify --key`) tells more.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from orchestrator.lib.errors import DamagedError, InputError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = 1
ALGORITHM = "digest_algorithm"
"""Names, in the body of a record, how it is digested; records of earlier versions have neither this nor a digest."""
END = re.compile(rb',\n  "digest": "([0-9a-f]{64})"\n\}\n\Z')
END_BYTES = len(',\n  "digest": ""\n}\n') + 64
Json = dict[str, Any]


class Output(TypedDict):
    """A file that a stage left."""

    path: str
    bytes: int
    sha256: str


class Stage(TypedDict):
    """How a stage went."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012
    status: str
    fingerprint: NotRequired[str]
    content_fingerprint: NotRequired[str]
    argv: NotRequired[list[str]]
    started_at: NotRequired[str]
    seconds: NotRequired[float | None]
    exit_code: NotRequired[int | None]
    outputs: NotRequired[list[Output]]


class Record(TypedDict):
    """A whole record."""

    __pydantic_config__ = {"extra": "allow"}  # type: ignore[misc]  # noqa: RUF012
    id: str
    name: str
    status: str
    created_at: str
    finished_at: NotRequired[str | None]
    stages: dict[str, Stage]
    files: NotRequired[list[Output]]
    metrics: dict[str, dict[str, Any]]
    lineage: dict[str, Any]
    environment: dict[str, Any]
    sweep: NotRequired[dict[str, Any] | None]


def to_text(record: Json) -> str:
    """A record as it is written, the digest last."""
    body = json.dumps({**record, ALGORITHM: "sha256"}, ensure_ascii=False, indent=2).removesuffix("\n}")
    return f'{body},\n  "digest": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def read(file: Path) -> Json:
    """The record in a file, without its digest.

    Raises DamagedError when it is gone, cut, edited or lacks what every record has, InputError for a newer version's.
    """
    where = f"{file.parent.name}/{file.name}"
    try:
        content = file.read_bytes()
        record = json.loads(content)
    except FileNotFoundError:
        raise _damaged(f"{where} is gone") from None
    except ValueError as error:
        raise _damaged(f"{where} is not JSON: {error}") from None
    if isinstance(record, dict) and (ALGORITHM in record or "digest" in record) and not _is_intact(content):
        raise _damaged(f"{where} is not as it was written: its digest differs")
    _require_schema(record, where)
    record.pop("digest", None)
    if wrong := _first_problem(record):
        raise _damaged(f"{where} is no record of a run: {wrong}")
    return dict(record)


def is_digested(record: Json) -> bool:
    """Whether it was written with a digest; earlier versions knew none."""
    return ALGORITHM in record


def _damaged(what: str) -> DamagedError:
    return DamagedError(what, "Restore the file, or remove the run with `orchestrator runs rm`.")


def _require_schema(record: Any, where: str) -> None:
    found = record.get("schema") if isinstance(record, dict) else None
    if isinstance(found, int) and found > SCHEMA:
        raise InputError(f"{where} has schema {found}, this version reads {SCHEMA}", "Update the orchestrator.")
    if found != SCHEMA:
        raise _damaged(f"{where} has schema {found!r}, this version reads {SCHEMA}")


def _is_intact(content: bytes) -> bool:
    end = END.match(content, max(0, len(content) - END_BYTES))
    return bool(end) and hashlib.sha256(content[:-END_BYTES]).hexdigest().encode() == end[1]  # type: ignore[index]


def _first_problem(record: Json) -> str:
    """Key and complaint of the first entry that is missing or of another type; empty when all is well."""
    from pydantic import ValidationError

    try:
        _reader().validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""


@functools.cache
def _reader() -> TypeAdapter[Record]:
    from pydantic import TypeAdapter

    return TypeAdapter(Record)
