"""The answers of a server: a file for each server, model and time, and what the run's record says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.evaluation.rows import Row, write_rows
from orchestrator.lib.files import sha256
from orchestrator.runs import store
from orchestrator.runs.locks import locked
from orchestrator.runs.store import Run
from orchestrator.serving.endpoint import Endpoint

KEY = "endpoints"
"""Of run.json: a list of what servers were asked, oldest first."""


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """What a server answered, as run.json keeps it."""

    path: str
    """Relative to the run's folder."""
    server: str
    """Its address, without what might be a password."""
    model: str
    asked_at: str
    rows: int
    sha256: str


def file_name(endpoint: Endpoint, moment: str) -> str:
    """`endpoint-HOST-MODEL-TIME.jsonl`; `moment` is a time as records have it."""
    model = re.sub(r"[^\w.-]+", "_", endpoint.model).strip("_.") or "model"
    host = re.sub(r"[^\w.-]+", "_", urlsplit(endpoint.url).netloc.rpartition("@")[2])
    return f"endpoint-{host}-{model[:80]}-{re.sub('[^0-9TZ]', '', moment)}.jsonl"


def keep(rows: Sequence[Row], wanted: Path) -> Path:
    """Write answers to a file that was not there before: the wanted one, or with a number after its name."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    numbered = (wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}") for number in count(2))
    for path in chain([wanted], numbered):
        try:
            path.open("x").close()  # so that two tools at the same time take two names
        except FileExistsError:
            continue
        write_rows(path, rows)
        return path
    raise AssertionError("unreachable")


def record(run: Run, file: Path, endpoint: Endpoint, rows: int, moment: str) -> None:
    """Add a file of answers to the run's record, where it lies in the run's folder."""
    path = file.resolve()
    if not path.is_relative_to(run.folder.resolve()):
        return
    where = str(path.relative_to(run.folder.resolve()))
    answered = AnswerFile(where, address(endpoint.url), endpoint.model, moment, rows, sha256(path))
    with locked(run.folder):
        now = store.load(run.folder)  # what others have written meanwhile
        now.set(**{KEY: [*now.record.get(KEY, ()), asdict(answered)]})


def address(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
