"""`run:ID` as a base model: what an earlier run made, to be trained further."""

from __future__ import annotations

from pathlib import Path

from orchestrator import layout, records
from orchestrator.errors import InputError, MissingError
from orchestrator.files import read_json
from orchestrator.records import Run

SOURCE = "run"


def run_of(name: str, runs_dir: Path | None) -> Run:
    """The run that an id, a part of one, or a folder names. Raises InputError when that is not exactly one."""
    if not name:
        raise InputError("model.base: run: names no run", "Write run:ID; `orchestrator runs list` has the ids.")
    return records.find(runs_dir or Path("runs"), name)


def folder(name: str, runs_dir: Path | None) -> Path:
    """The run's merged model, which holds its adapter and all before it. Raises MissingError while it has none."""
    run = run_of(name, runs_dir)
    merged = run.folder / layout.MERGED
    if run.stage("template").get("status") != "completed" or not merged.is_dir():
        raise MissingError(f"model.base: run {run.id} has no merged model", "Make it with `orchestrator export`.")
    return merged.resolve()


def template(name: str, runs_dir: Path | None) -> str:
    """The template that the run was trained with."""
    return str(read_json(run_of(name, runs_dir).folder / layout.SERVING)["template"])
