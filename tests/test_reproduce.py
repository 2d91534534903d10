"""verify finds what is not as recorded; reproduce makes a run anew and says what differs. Stages that take no time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.lib.errors import GateError, InputError
from orchestrator.pipeline import workflow
from orchestrator.pipeline.reproduce import compare
from orchestrator.runs import store
from orchestrator.runs.proof import damaged, recorded
from tests.faults import stand_in


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose stages are shell scripts, the current folder."""
    with stand_in.project_in(tmp_path) as made:
        monkeypatch.chdir(made)
        yield made


def make_run(project: Path, *overrides: str, phase: str = "evaluate") -> store.Run:
    return stand_in.carry_out(project, *overrides, phase=phase)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_a_whole_run_is_whole(project: Path) -> None:
    run = make_run(project)
    assert damaged(run) == []
    answer = call("verify")
    assert answer.exit_code == 0
    assert answer.output.splitlines()[:2] == [
        f"{run.id}: all {len(recorded(run))} files are as recorded",
        "its record: as it was written",
    ]


def test_every_kind_of_damage_is_named_even_where_size_and_time_are_kept(project: Path) -> None:
    run = make_run(project)
    names = ("train/adapter_model.safetensors", "evaluation/summary-score.json", "data/eval.json")
    weights, scores, data = (run.folder / name for name in names)
    status = weights.stat()
    weights.write_bytes(weights.read_bytes().replace(b"a", b"b"))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    scores.write_text("{}")
    data.unlink()
    found = sorted(damaged(run))
    assert found[0] == "data/eval.json: is gone"
    assert found[1].startswith("evaluation/summary-score.json: has 2 bytes instead of ")
    assert found[2] == "train/adapter_model.safetensors: has other contents"
    answer = call("verify", run.id)
    assert isinstance(answer.exception, GateError)
    assert answer.exception.message.startswith("3 of ")


def test_a_run_comes_out_the_same_as_it_was_told_and_takes_nothing_over(project: Path) -> None:
    run = make_run(project, "train.learning_rate=5.0e-3", "data.seed=7")
    spec = project / "spec.yaml"
    spec.write_text(spec.read_text().replace("num_train_epochs: 6", "num_train_epochs: 1"))  # the record counts
    started = len((project / stand_in.LEDGER).read_text().splitlines())
    answer = call("reproduce", "-q")
    assert answer.exit_code == 0, answer.exception
    again = store.find(project / "reproduced", None)
    assert answer.output == f"{again.id}: data, weights and figures are those of {run.id}\n"
    assert len((project / stand_in.LEDGER).read_text().splitlines()) == 2 * started
    assert again.record["fingerprint"] == run.record["fingerprint"]
    assert store.find(project / "runs", None).id == run.id


def test_what_came_out_otherwise_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(project)
    scripts = {"train": "echo other > data/train.json"}
    monkeypatch.setattr(workflow, "start", stand_in.launcher(project, scripts))
    answer = call("reproduce", "-q", "--json")
    assert isinstance(answer.exception, GateError)
    assert answer.exception.message.endswith(f"came out differently from {run.id}:\nadapter")
    assert '"train/adapter_model.safetensors"' in answer.output


def test_other_packages_are_named(project: Path) -> None:
    run = make_run(project, phase="train")
    other = store.Run(run.folder, {**run.record, "environment": {"packages": {"torch": "1.0"}}})
    assert f"packages.torch: {run.record['environment']['packages']['torch']} → 1.0" in compare(run, other).made_with


def test_a_run_without_results_cannot_be_made_anew(project: Path) -> None:
    make_run(project, phase="prepare")
    run = store.find(project / "runs", None)
    run.record["stages"] = {}
    run.save()
    answer = call("reproduce", "-q")
    assert isinstance(answer.exception, InputError)
    assert "has finished nothing" in answer.exception.message


def test_nothing_can_be_made_anew_into_the_same_folder(project: Path) -> None:
    make_run(project, phase="prepare")
    answer = call("reproduce", "-q", "--into", "runs")
    assert isinstance(answer.exception, InputError)
