"""What a record proves, what puts it right, and that one broken run is one line and no traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.lib import process
from orchestrator.lib.errors import DamagedError, GateError, InputError, OrchestratorError
from orchestrator.lib.files import write_text
from orchestrator.pipeline.plan import PACKAGES, make_plan
from orchestrator.runs import proof, schema, store
from orchestrator.runs.reuse import CHANGED
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts
from orchestrator.spec.load import load_project
from tests.faults import stand_in


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a finished run, made once."""
    with stand_in.project_in(tmp_path_factory.mktemp("proof")) as project:
        stand_in.carry_out(project)
        yield project


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The run, whole again afterwards; its project is the current folder."""
    monkeypatch.chdir(made)
    (folder,) = made.glob("runs/2*")
    kept = shutil.copytree(folder, tmp_path / "kept")
    yield store.load(folder)
    for other in made.glob("runs/2*"):
        shutil.rmtree(other)
    shutil.copytree(kept, folder)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def flip(file: Path, at: int = 0) -> None:
    """Change a byte and put the time of the change back."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit_record(run: Run, old: str, new: str) -> None:
    file = run.folder / "run.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


# ---- the record


def test_any_changed_byte_of_a_record_is_noticed(run: Run) -> None:
    file = run.folder / "run.json"
    content = file.read_bytes()
    for at in range(0, len(content), 37):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DamagedError):
            schema.read(file)


def test_an_accuracy_that_was_edited_is_shown_nowhere(run: Run) -> None:
    edit_record(run, '"value": 90.0', '"value": 99.0')
    listed = call("runs", "list")
    assert " damaged " in listed.stdout and "99" not in listed.stdout
    assert f"damaged: {run.id}" in listed.stderr
    assert json.loads(call("runs", "show", "--json").stdout)["metrics"]["tuned"]["accuracy"]["value"] == 90.0
    assert "is not as it was written: its digest differs" in call("runs", "show").stderr
    assert "its digest differs" in str(call("verify").exception)


def test_figures_that_were_edited_beside_the_record_are_shown_nowhere(run: Run) -> None:
    file = run.folder / "evaluation/summary-judge.json"
    file.write_text(file.read_text().replace("90.0", "99.0"))
    shown = call("runs", "show")
    assert "90.0 %" in shown.stdout and "99" not in shown.stdout
    assert "evaluation/summary-judge.json is gone or changed" in shown.stderr
    page = Path(call("report").stdout.strip()).read_text(encoding="utf-8")
    assert "99.0" not in page and "`orchestrator export` makes it again" in page


@pytest.mark.parametrize("folder", ["evaluation", "data"])
def test_which_command_makes_a_missing_folder_again(run: Run, folder: str) -> None:
    shutil.rmtree(run.folder / folder)
    assert call("runs", "show").exit_code == call("report").exit_code == 0
    for arguments in (("verify",), ("chat", "--once", "x"), ("push", "ollama:x"), ("push", "hf:a/b")):
        error = call(*arguments).exception
        assert isinstance(error, GateError), arguments
        assert f"{folder}/" in error.message
    stand_in.carry_out(Path.cwd())
    assert proof.damaged(store.load(run.folder)) == []


HALVES = ('{"schema": 1}', '{"schema": 1, "id": "x", "stages": 7}', "[]", "", "{", '{"schema": 99}', '{"schema": "1"}')


@pytest.mark.parametrize("text", HALVES)
def test_half_a_record_breaks_nothing_else(run: Run, text: str) -> None:
    half = run.folder.with_name("29990101T000000Z-half-aaaaaa")
    write_text(half / "run.json", text)
    listed = call("runs", "list")
    lines = [line.split() for line in listed.stdout.splitlines()[1:]]
    assert [line[0] for line in lines] == [half.name, run.id]
    assert "damaged" in lines[0] and "completed" in lines[1]
    assert json.loads(call("runs", "list", "--json").stdout)["runs"][0]["status"] == "damaged"
    assert run.id in call("runs", "best").stdout
    for arguments in (("plan",), ("run", "-q"), ("runs", "list", "--where", "accuracy>1"), ("runs", "prune", "--yes")):
        assert call(*arguments).exit_code == 0, (arguments, call(*arguments).exception)
    for command in ("verify", "report", "chat", "serve", "runs show", "reproduce"):
        error = call(*command.split(), half.name).exception
        assert isinstance(error, OrchestratorError), (command, error)
        assert half.name in error.message
    assert call("runs", "rm", half.name, "--yes").exit_code == 0
    assert not half.exists()


def test_a_record_of_an_earlier_version_proves_less_and_says_so(run: Run) -> None:
    old = {key: value for key, value in run.record.items() if key not in ("digest_algorithm", "files")}
    (run.folder / "run.json").write_text(json.dumps(old), encoding="utf-8")
    (run.folder / "run.copy.json").unlink()
    answer = call("verify")
    assert answer.exit_code == 0
    assert "its record: not proven: written by an earlier version" in answer.stdout
    written = list((run.folder / "configs").iterdir())
    assert f"configs/ ({len(written)})" in answer.stdout and len(written) > 10


def test_who_takes_the_digest_out_has_not_made_an_earlier_record(run: Run) -> None:
    edit_record(run, '"digest": ', '"digets": ')
    with pytest.raises(DamagedError, match="its digest differs"):
        schema.read(run.folder / "run.json")


def test_a_signed_run_is_told_from_one_that_was_signed_by_another(run: Run, tmp_path: Path) -> None:
    if not shutil.which("ssh-keygen"):
        pytest.skip("no ssh-keygen here")
    for name in ("ours", "theirs"):
        process.output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)])
    keys = [str(tmp_path / f"{name}.pub") for name in ("ours", "theirs")]
    assert "is not signed" in str(call("verify", "--key", keys[0]).exception)
    for _ in range(2):
        assert call("verify", "--sign", str(tmp_path / "ours")).exit_code == 0
    assert "its record: signed by ours.pub" in call("verify", "--key", keys[0]).stdout
    assert "is not by theirs.pub" in str(call("verify", "--key", keys[1]).exception)
    run.set(lineage={**run.record["lineage"], "more": 1})  # with a digest of its own, as somebody who means it writes
    assert proof.damaged(run) == []
    assert "or of another record" in str(call("verify", "--key", keys[0]).exception)
    assert isinstance(call("verify", "--sign", str(tmp_path / "none")).exception, InputError)


# ---- files


def test_verify_covers_what_no_stage_promises_and_lists_what_nothing_proves(run: Run) -> None:
    call("report")
    assert proof.unproven(run)[-1] == "report.html"
    assert {path.split("/")[0] for path in proof.unproven(run)} == {"logs", "report.html"}
    (run.folder / "export/merged/pytorch_model.bin").write_bytes(b"pickle")
    assert "export/merged/pytorch_model.bin" in proof.unproven(run)
    for path in ("spec.yaml", "configs/train.yaml"):
        flip(run.folder / path)
        assert f"{path}: has other contents" in proof.damaged(run)


def test_the_cure_that_verify_names_works_from_anywhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(run.folder / "export/tiny-f16.gguf")
    monkeypatch.chdir(tmp_path)
    error = call("verify", "--runs-dir", str(run.folder.parent)).exception
    assert isinstance(error, GateError)
    program, *arguments = error.hint.split("`")[1].split()
    assert program == "orchestrator"
    assert call(*arguments).exit_code == 0
    assert proof.damaged(store.load(run.folder)) == []


def test_a_run_of_other_versions_has_no_such_cure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.pipeline.plan.versions", lambda: dict.fromkeys(PACKAGES, "0.0"))
    flip(run.folder / "export/tiny-f16.gguf")
    error = call("verify").exception
    assert isinstance(error, GateError)
    assert "versions are not those of today" in error.hint


def test_what_follows_from_a_repair_is_repeated_only_if_it_came_out_otherwise(run: Run) -> None:
    flip(run.folder / "data/train.json")
    reasons = {planned.step.stage: planned.why for planned in make_plan(load_project(Path("spec.yaml"))).steps}
    assert reasons["prepare"] == CHANGED
    assert reasons["train"] == "after prepare, unless that comes out the same"
    before = len((Path.cwd() / stand_in.LEDGER).read_text().splitlines())
    stand_in.carry_out(Path.cwd(), paranoid=True)
    started = (Path.cwd() / stand_in.LEDGER).read_text().splitlines()[before:]
    assert [line.split()[0] for line in started] == ["prepare"]
    assert proof.damaged(store.load(run.folder)) == []


def test_a_file_comes_back_from_another_that_holds_the_same(run: Run) -> None:
    weights, checkpoint = run.folder / "train/adapter_model.safetensors", run.folder / "train/checkpoint-9/weights"
    checkpoint.parent.mkdir()
    shutil.copy(weights, checkpoint)
    proof.add(run, [checkpoint], stand_in.hashes(Path.cwd()))
    flip(weights)
    before = (Path.cwd() / stand_in.LEDGER).read_text()
    said = call("run", "-q").stderr
    assert "train/adapter_model.safetensors is a copy of train/checkpoint-9/weights again" in said
    assert (Path.cwd() / stand_in.LEDGER).read_text() == before, "no stage was started"
    flip(checkpoint)
    assert "is a copy of train/adapter_model.safetensors again" in call("run", "-q").stderr
    assert proof.damaged(store.load(run.folder)) == []


def test_a_stage_that_the_spec_no_longer_asks_for_is_dropped_when_damaged(run: Run) -> None:
    flip(run.folder / "export/tiny-q8_0.gguf")
    stand_in.carry_out(Path.cwd(), "export.gguf=[f16]")
    again = store.load(run.folder)
    assert proof.damaged(again) == []
    assert "quantise-q8_0" not in again.record["stages"]
    assert not (run.folder / "export/tiny-q8_0.gguf").exists()


def test_a_damaged_result_is_not_taken_over_by_another_run(run: Run) -> None:
    flip(run.folder / "data/eval.json")
    other = stand_in.carry_out(Path.cwd(), "train.learning_rate=3.0e-3", phase="prepare")
    assert other.id != run.id
    assert "reused_from" not in other.stage("prepare")
    assert proof.damaged(other) == []


# ---- shipping


EVERY = {"f16": "export/tiny-f16.gguf", "q8_0": "export/Modelfile.q8_0", "tuned": "train/adapter_model.safetensors"}


@pytest.mark.parametrize(("artifact", "path"), EVERY.items())
@pytest.mark.parametrize(
    "command", [("chat", "--once", "x"), ("serve",), ("push", "hf:a/b"), ("push", "ollama:x", "--bundle", "b")]
)
def test_every_way_out_refuses_what_was_changed(run: Run, artifact: str, path: str, command: tuple[str, ...]) -> None:
    if artifact == "tuned" and "ollama:x" in command:
        return
    flip(run.folder / path)
    error = call(*command, "--artifact", artifact).exception
    assert isinstance(error, GateError)
    assert error.message.startswith(f"{artifact} of {run.id} is not what was proven:\n{path}: has other contents")
    assert not Path("b").exists()


def test_a_modelfile_with_an_instruction_of_somebody_elses_is_not_what_was_proven(run: Run) -> None:
    file = run.folder / "export/Modelfile.q8_0"
    file.write_text(file.read_text(encoding="utf-8") + "LICENSE MIT\n", encoding="utf-8")
    with pytest.raises(GateError, match=r"not what was proven:\nexport/Modelfile.q8_0: has "):
        artifacts.choose(run, "q8_0")


def test_what_nobody_recorded_is_not_uploaded(run: Run) -> None:
    (run.folder / "export/merged/model-00002.safetensors").write_bytes(b"another")
    error = call("push", "hf:a/b", "--artifact", "tuned").exception
    assert "export/merged/model-00002.safetensors: nothing was recorded of it" in str(error)


def test_force_ships_it_all_the_same(run: Run) -> None:
    flip(run.folder / "export/tiny-f16.gguf")
    assert artifacts.choose(run, "f16", force=True) == "f16"
    answer = call("push", "ollama:x", "--artifact", "f16", "--force", "--dry-run")
    assert answer.exit_code == 0, answer.exception


def test_an_untouched_file_is_not_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.lib.files.SMALL", 0)
    artifacts.choose(run, "f16")
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return "0"

    monkeypatch.setattr("orchestrator.lib.files.sha256", counted)
    artifacts.choose(run, "f16")
    assert read == []
