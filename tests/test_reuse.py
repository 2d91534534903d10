"""Whether a step's result is there already, and whose it is: decisions over a record, without a process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib.files import HashCache, sha256, write_text
from orchestrator.lib.step import Step
from orchestrator.pipeline.plan import make_plan
from orchestrator.runs import reuse
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run
from orchestrator.spec.load import load_project
from tests.faults import stand_in

STEPS = (
    Step("prepare", "prepare", ("p",)),
    Step("train", "train", ("t",), needs=("prepare",), reads=("*", "!data/eval*")),
    Step("ask", "verify", ("a",), needs=("train",)),
)
NAMED = reuse.named(STEPS, {})


def run_of(folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Run:
    """A run in which every step ended well, but for what is said otherwise."""
    stages = {}
    for one in NAMED:
        file = folder / f"{one.step.stage}.txt"
        file.write_text(f"成果 {one.step.stage}", encoding="utf-8")
        left = {"path": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)}
        entry = {"status": "completed", "fingerprint": one.fingerprint, "outputs": [left]}
        stages[one.step.stage] = {**entry, **(changes or {}).get(one.step.stage, {})}
    return Run(folder, {"id": folder.name, "stages": stages})


def why(run: Run | None, *force: str) -> list[str]:
    return [one.why for one in reuse.judge(NAMED, run, force, HashCache(Path("hashes.json"), paranoid=True))]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["up to date", "up to date", "up to date"]),
        ({"train": {"status": "failed"}}, ["up to date", "failed last time", "after train"]),
        ({"train": {"fingerprint": "x"}}, ["up to date", "its configuration or inputs changed", "after train"]),
    ],
)
def test_a_record_says_what_is_up_to_date(tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    assert why(run_of(tmp_path, changes)) == said


def test_force_and_a_new_run_need_no_record(tmp_path: Path) -> None:
    assert why(None) == ["new run"] * 3
    assert why(run_of(tmp_path), "train") == ["up to date", "forced", "after train"]
    assert reuse.own_run(tmp_path, "news", NAMED, ["train"]) is None


def test_what_follows_from_a_damaged_file_is_spared_once_that_came_out_the_same(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (tmp_path / "prepare.txt").write_text("坏", encoding="utf-8")
    prepare, train, ask = reuse.judge(NAMED, run, (), HashCache(Path("hashes.json"), paranoid=True))
    assert (prepare.why, train.why) == (reuse.CHANGED, "after prepare, unless that comes out the same")
    before = {stage: entry["outputs"] for stage, entry in run.record["stages"].items()}

    assert list(reuse.spared([train, ask], ["prepare"], run, before)) == []
    assert list(reuse.spared([train, ask], [], run, before)) == [train, ask]
    run.record["stages"]["prepare"]["outputs"] = [{"path": "prepare.txt", "bytes": 1, "sha256": "other"}]
    assert list(reuse.spared([train, ask], [], run, before)) == []


def test_another_runs_result_counts_where_it_was_made_from_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beside(name: str, rows: str) -> Run:
        (tmp_path / name).mkdir()
        return run_of(tmp_path / name, {"prepare": {"outputs": [{"path": "data/train.json", "sha256": rows}]}})

    ours, same, other = beside("ours", "a"), beside("same", "a"), beside("other", "b")
    found = {"the same way": other, "the same files": other}
    monkeypatch.setattr(reuse, "holder", lambda runs_dir, stage, name, hashes: found.get(name))
    train, hashes = replace(NAMED[1], fingerprint="the same way"), HashCache(Path("hashes.json"))

    assert reuse.donor(ours, train, "", hashes) is None
    assert reuse.donor(ours, train, "the same files", hashes) is other
    found["the same way"] = same
    assert reuse.donor(ours, train, "", hashes) is same
    assert reuse.donor(same, train, "", hashes) is None, "it is this run itself"
    assert reuse.donor(ours, replace(train, why=reuse.FORCED), "the same files", hashes) is None


def planned_train(project: Path, *overrides: str) -> Planned:
    return make_plan(load_project(project / "spec.yaml", overrides)).of("train")


@pytest.mark.parametrize("argument", ["fsdp_config", "new_special_tokens_config"])
def test_a_file_that_an_argument_names_counts_by_its_content(tmp_path: Path, argument: str) -> None:
    with stand_in.project_in(tmp_path) as project:
        plain, named = planned_train(project), f"train.{argument}={tmp_path}/own.json"
        write_text(tmp_path / "own.json", "{}")
        first = planned_train(project, named)
        write_text(tmp_path / "own.json", '{"a": 1}')
        assert planned_train(project, named).fingerprint != first.fingerprint
        assert not [name for name in plain.step.inputs if name.startswith("train.")]


def test_a_reference_model_is_found_from_the_project_and_counts_by_its_content(tmp_path: Path) -> None:
    with stand_in.project_in(tmp_path) as project:
        asked = ("train.stage=dpo", "train.ref_model=reference")
        shutil.copytree(tmp_path / "model", project / "reference")
        first = planned_train(project, *asked)
        assert first.step.arguments["ref_model"] == str(project / "reference")
        write_text(project / "reference/config.json", (tmp_path / "model/config.json").read_text() + "\n")
        assert planned_train(project, *asked).fingerprint != first.fingerprint
        assert (
            planned_train(project, "train.stage=dpo", "train.ref_model=org/name").step.arguments["ref_model"]
            == "org/name"
        )


def test_contents_are_those_that_a_step_reads(tmp_path: Path) -> None:
    def contents(**left: str) -> str:
        outputs = [{"path": f"data/{name}.json", "sha256": sha} for name, sha in left.items()]
        return reuse.contents(NAMED[1], run_of(tmp_path, {"prepare": {"outputs": outputs}}))

    assert contents(train="a", eval="b") == contents(train="a", eval="c") != contents(train="x", eval="b")
    assert reuse.contents(NAMED[2], run_of(tmp_path)) == "", "nobody says what it reads"
