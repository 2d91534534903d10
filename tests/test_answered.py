"""A GGUF is asked only what it has not answered yet."""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib import layout
from orchestrator.lib.files import read_json_lines
from orchestrator.lib.process import Command
from orchestrator.lib.step import Step
from orchestrator.pipeline.stage_process import StageProcess
from orchestrator.runs import store
from orchestrator.runs.reuse import Planned
from orchestrator.stages import ask
from orchestrator.stages.answered import Answered, identity

PROMPTS = [[1, 2, number] for number in range(12)]


class Model:
    """Answers a prompt with its tokens, turned round; `dies_after` so many it is killed."""

    def __init__(self, dies_after: int = 99) -> None:
        self.asked: list[list[int]] = []
        self._left = dies_after

    def answers(self, prompts: list[list[int]], drafts: Any, limit: int) -> Iterator[tuple[int, list[int]]]:
        for index in reversed(range(len(prompts))):
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
            self.asked.append(prompts[index])
            yield index, prompts[index][::-1][:limit]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return in_run(tmp_path / "1", monkeypatch)


def in_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def answer(model: Model, prompts: list[list[int]] = PROMPTS, limit: int = 4, gguf: str = "a") -> list[list[int]]:
    return ask._answers(partial(model.answers, limit=limit), prompts, {}, limit, Answered("gguf-f16", gguf))


WANTED = [prompt[::-1] for prompt in PROMPTS]


def test_a_killed_stage_goes_on_at_the_next_row(run: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        answer(Model(dies_after=5))
    file = Path(layout.answered("gguf-f16"))
    file.write_text(file.read_text()[:-20])  # in the middle of a line
    model = Model()
    assert answer(model) == WANTED
    assert len(model.asked) == 8
    assert answer(again := Model()) == WANTED
    assert len(again.asked) <= 1  # the line that was cut may be lost


def test_ten_more_rows_ask_ten_rows_in_another_run_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(Model(), PROMPTS[:2])
    model = Model()
    assert answer(model) == WANTED and len(model.asked) == 10
    in_run(run.parent / "2", monkeypatch)
    assert answer(other := Model()) == WANTED and other.asked == []
    assert answer(changed := Model(), gguf="b") == WANTED and len(changed.asked) == 12


@pytest.mark.parametrize(("limit", "asked"), [(2, 0), (3, 0), (4, 12), (5, 12)])
def test_an_answer_is_known_as_far_as_it_went(run: Path, limit: int, asked: int) -> None:
    answer(Model(), limit=3)  # every answer has three tokens, and may have been cut off
    model = Model()
    assert answer(model, limit=limit) == [tokens[:limit] for tokens in WANTED]
    assert len(model.asked) == asked


def test_an_answer_that_ended_is_known_for_any_limit(run: Path) -> None:
    answer(Model(), limit=4)
    assert answer(model := Model(), limit=400) == WANTED and model.asked == []


def test_another_file_or_other_stop_words_are_another_artifact(run: Path) -> None:
    Path("x.gguf").write_bytes(b"x")
    first = identity(["x.gguf"], ["</s>"])
    assert identity(["x.gguf"], ["</s>"]) == first != identity(["x.gguf"], [])
    Path("x.gguf").write_bytes(b"y")
    assert identity(["x.gguf"], ["</s>"]) != first


@pytest.mark.parametrize(
    ("status", "fingerprint", "kept"),
    [("interrupted", "same", True), ("completed", "other", True), ("completed", "same", False)],
)
def test_what_had_ended_well_is_asked_anew(status: str, fingerprint: str, kept: bool, tmp_path: Path) -> None:
    kept_file = layout.answered("gguf-f16")
    run = store.create(tmp_path, "news", stages={"ask-f16": {"status": status, "fingerprint": fingerprint}})
    (run.folder / kept_file).parent.mkdir(exist_ok=True)
    (run.folder / kept_file).write_text('{"key": "k"}\n')
    step = Step("ask-f16", "verify", ("true",), keeps=(kept_file,))

    def launch(step: Step, command: Command) -> Any:
        return types.SimpleNamespace()

    StageProcess(Planned(step, "same", False, ""), run, lambda: None).begin(launch, step, {})
    assert len(read_json_lines(run.folder / kept_file)) == int(kept)
