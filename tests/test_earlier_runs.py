"""Run folders of every earlier schema stay readable: listed, shown, compared, scored, verified, reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.lib.errors import GateError
from orchestrator.runs import store
from orchestrator.runs.proof import damaged, recorded
from orchestrator.spec.load import load_project

KEPT = Path(__file__).parent / "earlier_runs"
RUNS = sorted(folder.parent for folder in KEPT.glob("schema-*/*/run.json"))


@pytest.fixture(params=RUNS, ids=[f"{run.parent.name}/{run.name}" for run in RUNS])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Run:
    """A kept run among the runs of a project, the current folder."""
    folder: Path = request.param
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    monkeypatch.chdir(tmp_path)
    return store.load(tmp_path / "runs" / folder.name)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def answer(*arguments: str) -> Any:
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def test_there_is_one_of_the_present_schema() -> None:
    assert f"schema-{store.SCHEMA}" in {run.parent.name for run in RUNS}


def test_it_is_listed_and_shown(run: store.Run) -> None:
    assert [listed["id"] for listed in answer("runs", "list")["runs"]] == [run.id]
    assert answer("runs", "show", run.id)["metrics"] == run.record["metrics"]
    for plain in (("runs", "list"), ("runs", "show"), ("runs", "list", "--where", "accuracy>=0")):
        assert run.record["name"] in call(*plain).stdout


def test_it_can_be_compared(run: store.Run) -> None:
    again = shutil.copytree(run.folder, run.folder.with_name(run.id[:-1] + "x"))
    record = json.loads((again / "run.json").read_text(encoding="utf-8"))
    (again / "run.json").write_text(json.dumps(record | {"id": again.name}), encoding="utf-8")
    assert call("runs", "compare", run.id, again.name).exit_code == 0


def test_its_predictions_are_scored_as_they_were(run: store.Run) -> None:
    scored = answer("evaluate", "--predictions", str(run.folder / "evaluation/tuned.jsonl"))["metrics"]
    assert scored["accuracy"] == run.record["metrics"]["tuned"]["accuracy"]


def test_its_page_is_written(run: store.Run) -> None:
    assert run.id in Path(answer("report", run.id)["page"]).read_text(encoding="utf-8")


def test_what_was_kept_is_as_recorded(run: store.Run) -> None:
    found = damaged(run)
    assert len(found) < len(recorded(run))
    assert [damage for damage in found if not damage.endswith(": is gone")] == []
    assert isinstance(call("verify", run.id).exception, GateError)


def test_its_spec_still_says_what_was_meant(run: store.Run) -> None:
    for name in ("train", "eval"):
        target = Path(f"data/{name}.json")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(run.folder / f"data/{name}.json", target)
    there = ("model.base=builtin:smollm2-135m-instruct",)
    assert load_project(run.folder / "spec.yaml", there, root=Path.cwd()).spec.name == run.record["name"]
