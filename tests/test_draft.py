"""What is known of an answer beforehand makes it faster, and no other; what is read on the way is not read again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.evaluation import divergence
from orchestrator.evaluation.rows import write_records
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.models import gguf
from orchestrator.models.draft import Draft, until_end
from orchestrator.stages import given
from orchestrator.stages.ask import Ask
from orchestrator.stages.diverge import Diverge
from orchestrator.stages.given import Given

LIMIT, END = 8, 2


@pytest.mark.parametrize(
    ("draft", "chosen", "said"),
    [
        ([5, 6, END], [5, 6, END], [5, 6, END]),
        ([5, 6, END], [7, 6, END], [7]),  # what follows was chosen behind a token that the model would not have said
        ([5, 6, END], [5, END, END], [5, END]),
        ([5, 6, END], [5, 6, 7], [5, 6, 7]),
        ([5], [6], [6]),
    ],
)
def test_a_draft_counts_up_to_the_first_token_that_is_not_chosen(draft: Any, chosen: Any, said: Any) -> None:
    assert Draft(draft, print).agreed(chosen) == said


@pytest.mark.parametrize(
    ("tokens", "limit", "answer", "ended"),
    [
        ([5, END], 4, [5], True),
        ([5, 6], 4, [5, 6], False),
        ([5, 6], 2, [5, 6], True),
        ([5, 6, END], 2, [5, 6], True),
        ([5, 6, 7], 2, [5, 6], True),
        ([END], 4, [], True),
    ],
)
def test_an_answer_ends_by_its_end_or_at_the_limit(tokens: Any, limit: int, answer: list[int], ended: bool) -> None:
    assert until_end(tokens, lambda token: token == END, limit) == (answer, ended)


@pytest.fixture
def run(shipped_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, as its stages see it."""
    folder = tmp_path / "run"
    shutil.copytree(shipped_run.folder, folder)
    monkeypatch.chdir(folder)
    return folder


def ask() -> list[Any]:
    Ask(**read_json(Path("configs/ask-f16.json"))).run()
    return left_by_ask()


def left_by_ask() -> list[Any]:
    return [read_json_lines(Path(layout.predictions("gguf-f16"))), read_json(Path(layout.parity("gguf-f16")))]


def diverge(kind: str = "f16") -> list[dict[str, Any]]:
    Diverge(**read_json(Path(f"configs/diverge-{kind}.json"))).run()
    return read_json_lines(Path(layout.divergence(f"gguf-{kind}")))


def forget(file: str, lines: int | None = None) -> None:
    """Leave so many lines of a file, by default none of it."""
    kept = Path(file).read_text(encoding="utf-8").splitlines(keepends=True)[:lines] if lines else []
    Path(file).write_text("".join(kept), encoding="utf-8")


def alike(row: dict[str, Any]) -> Any:
    """What equals a row but for rounding, which depends a little on what is computed beside it."""
    return {name: value if isinstance(value, str) else pytest.approx(value, abs=1e-4) for name, value in row.items()}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers were read, each time that a GGUF was given some."""
    counts: list[int] = []
    read = gguf.GgufModel.read

    def counted(self: Any, readings: Any, look: Any) -> Any:
        counts.append(len(readings))
        return read(self, readings, look)

    monkeypatch.setattr(gguf.GgufModel, "read", counted)
    return counts


def test_drafts_change_no_answer_whatever_they_say(run: Path) -> None:
    rows = read_json_lines(Path(layout.PROMPTS))
    prompts = [row["ids"] for row in rows]
    with gguf.GgufModel(Path(layout.gguf("tiny", "f16"))) as model:
        stops = model.stops(read_json(Path(layout.SERVING))["stop"])
        alone = dict(model.answers(prompts, LIMIT, stops))
        end, other = min(stops), model.tokenize("中文 wrong")
        wrong: list[Callable[[list[int]], list[int]]] = [
            lambda answer: [*answer, end],
            lambda answer: other,
            lambda answer: [*answer[:1], *other, end],
            lambda answer: answer[:1],
            lambda answer: [*answer, *other * LIMIT],
        ]
        for make in wrong:
            drafts, shown = watched({index: make(alone[index]) for index in range(1, len(prompts))})  # one has none
            assert dict(model.answers(prompts, LIMIT, stops, drafts)) == alone
            assert shown == {index: list(range(len(draft.tokens))) for index, draft in drafts.items()}


def watched(tokens: dict[int, list[int]]) -> tuple[dict[int, Draft], dict[int, list[int]]]:
    """Drafts, and the places of each that it was shown the logits for."""
    shown: dict[int, list[int]] = {index: [] for index in tokens}
    return {
        index: Draft(draft, lambda logits, place, index=index: shown[index].append(place))  # type: ignore[misc]
        for index, draft in tokens.items()
    }, shown


def test_what_was_read_while_asking_is_not_read_again(run: Path, loads: list[int]) -> None:
    before, rows = left_by_ask(), len(read_json_lines(Path(layout.GIVEN)))
    read_alone = diverge()
    assert any(row["own"] for row in read_json_lines(Path(layout.GIVEN)))
    forget(layout.answered("gguf-f16"))
    assert ask() == before
    assert diverge() == [alike(row) for row in read_alone]
    assert loads == [rows, rows]
    assert not Path(layout.places("gguf-f16")).exists()
    assert diverge() == read_alone and loads == [rows, rows, rows]  # what is read alike is the same to the last digit


def test_a_killed_stage_goes_on_and_what_it_had_not_read_is_read_later(run: Path, loads: list[int]) -> None:
    read_alone, rows = diverge(), len(read_json_lines(Path(layout.GIVEN)))
    answers = read_json_lines(Path(layout.predictions("gguf-f16")))
    forget(layout.answered("gguf-f16"), lines=3)
    assert ask()[0] == answers
    assert diverge() == [alike(row) for row in read_alone]
    assert loads == [rows, rows - 3, 3]


def test_other_answers_are_no_drafts_and_are_read_for_themselves(run: Path, loads: list[int]) -> None:
    given_rows = read_json_lines(Path(layout.GIVEN))
    forget(layout.answered("gguf-f16"))
    ask()
    given_rows[0]["prompt"] = [*given_rows[0]["prompt"], 5]  # a prompt that llama.cpp makes other tokens of
    write_records(Path(layout.GIVEN), given_rows)
    diverge()
    forget(layout.answered("gguf-f16"))
    ask()
    diverge()
    assert loads == [len(given_rows), len(given_rows), len(given_rows) - 1, 1]


@pytest.mark.parametrize(
    ("file", "bytes_"),
    [
        (layout.GIVEN, None),
        (layout.GIVEN, 100),
        (layout.expectations("tuned"), None),
        (layout.expectations("tuned"), 0),
        (layout.expectations("tuned"), 100),
        (layout.stage_config("diverge-f16"), None),
    ],
)
def test_without_the_tuned_models_answers_a_gguf_is_asked_as_ever(
    file: str, bytes_: int | None, run: Path, loads: list[int]
) -> None:
    answers = read_json_lines(Path(layout.predictions("gguf-f16")))
    whole = Path(file).read_bytes()
    Path(file).unlink()
    if bytes_ is not None:  # a stage was killed as it wrote
        Path(file).write_bytes(whole[:bytes_])
    forget(layout.answered("gguf-f16"))
    assert ask()[0] == answers and loads == [] and not Path(layout.places("gguf-f16")).exists()


@pytest.mark.parametrize("expects", [True, False])
def test_places_are_kept_under_what_they_depend_on(expects: bool, tmp_path: Path) -> None:
    rows = [{"id": "一", "prompt": [1], "answer": [3, 4]}, {"id": "2", "prompt": [1, 2], "answer": [5]}]
    logits = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    write_records(tmp_path / "given.jsonl", rows)
    reference = divergence.expectations(divergence.expectation(of, 3, 8) for of in logits[::-1])
    given.save(tmp_path / "reference.npz", reference)
    read = Given(tmp_path / "given.jsonl", tmp_path / "reference.npz", expects)
    seen = {0: [read.look(logits[0], 0, 0), read.look(logits[1], 0, 1)], 1: [read.look(logits[2], 1, 0)]}
    file, key = tmp_path / "places.npz", read.key("a.gguf")
    assert read.kept(file, key) == {}
    read.keep(file, key, {1: seen[1]})
    read.keep(file, key, {0: seen[0]})
    found = read.kept(file, key)
    assert figures(found) == figures(seen)
    for name in given.ARRAYS if expects else ():
        assert np.array_equal(*(getattr(expected(of), name) for of in (seen, found)))
    assert read.kept(file, read.key("b.gguf")) == {}
    file.write_bytes(file.read_bytes()[:-50])  # the disk was full
    assert read.kept(file, key) == {}


def figures(places: given.Places) -> list[list[tuple[float, float]]]:
    return [[place[:2] for place in places[number]] for number in sorted(places)]


def expected(places: given.Places) -> Any:
    return divergence.expectations(place[2] or () for number in sorted(places) for place in places[number])
