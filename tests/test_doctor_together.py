"""Whether what is installed works together, and what is said where it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.lib.errors import StageError
from orchestrator.lib.step import Step
from orchestrator.report import together
from tests.conftest import make_project

REASON = "RuntimeError: Detected that PyTorch and TorchAudio were compiled with different CUDA versions."


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is remembered that the imports worked; not there yet."""
    monkeypatch.setattr(together, "_seen", lambda: tmp_path / "seen")
    return tmp_path / "seen"


def importing(code: str) -> Step:
    return Step("imports", "prepare", (sys.executable, "-c", code))


def test_imports_that_fail_say_why_and_the_cure(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "IMPORTS", importing(f"import sys; sys.exit({REASON!r})"))
    check = together.imports()
    assert (check.state, check.fix) == ("missing", "make setup")
    assert check.detail == f"what is installed does not fit together: {REASON}"
    assert not seen.exists()


def test_imports_that_work_are_not_tried_again(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "IMPORTS", importing(""))
    assert together.imports().state == "ok" and seen.exists()
    monkeypatch.setattr(together, "IMPORTS", importing("raise SystemExit(1)"))
    assert together.imports().state == "ok"


def test_another_version_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = together._seen()
    real = together.metadata.distribution

    class Newer:
        version = "9"

        def locate_file(self, path: str) -> Path:
            return Path(str(real("torch").locate_file(path)))

    monkeypatch.setattr(together.metadata, "distribution", lambda name: Newer() if name == "torch" else real(name))
    assert before != together._seen() and before.parent == Path(sys.prefix)


def test_a_trial_ends_where_the_imports_do(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "WarmLauncher", lambda: together.start)
    monkeypatch.setattr(together, "IMPORTS", importing(f"import sys; sys.exit({REASON!r})"))
    assert [(check.name, check.state) for check in together.trial()] == [("imports", "missing")]


def test_a_stage_that_fails_in_a_trial_is_told(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(project: Path, launch: together.Launch) -> None:
        raise StageError("train ended with exit code 1: no", "The whole log: x")

    monkeypatch.setattr(together, "WarmLauncher", lambda: together.start)
    monkeypatch.setattr(together, "IMPORTS", importing(""))
    monkeypatch.setattr(together, "ship", fails)
    monkeypatch.setattr(together, "make_toy", lambda project: None)
    *_, last = together.trial()
    assert (last.name, last.state, last.detail) == ("trial", "missing", "train ended with exit code 1: no")


def test_only_what_an_asked_gguf_needs_is_done(tmp_path: Path, tiny_model: Path) -> None:
    project = make_project(tmp_path, tiny_model)
    loaded = together.load_project(project / "spec.yaml", (f"export.gguf=[{together.KIND}]",))
    task = together.assign(loaded, "verify")
    steps = {planned.step.stage: planned for planned in task.target_plan.steps}
    assert {"predict-tuned", "score"} < steps.keys()
    made = ["prepare", "train", "merge", "template", "convert"]
    assert list(together.needed(steps, together.LAST)) == [*made, together.LAST]


@pytest.mark.slow
def test_a_toy_is_trained_converted_and_asked(tmp_path: Path, builtin_model: Path) -> None:
    together.make_toy(tmp_path)
    together.ship(tmp_path, together.WarmLauncher())
    (answers,) = tmp_path.glob("runs/*/evaluation/gguf-q8_0.jsonl")
    assert len(answers.read_text().splitlines()) == 2
