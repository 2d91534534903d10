"""A training that lost its numbers has failed, as soon as its log says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.divergence import Losses, require_finished, require_numbers
from orchestrator.errors import StageError

NAN, INF = float("nan"), float("inf")


def entries(name: str, *values: float) -> list[dict[str, Any]]:
    return [{name: value, "step": 10 * number} for number, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (entries("loss", 2.0, NAN, NAN, NAN), "loss became nan at step 20"),
        (entries("loss", NAN), "loss became nan at step 10"),
        (entries("eval_loss", 1.0, NAN, NAN, NAN), "eval_loss became nan at step 20"),
        (entries("loss", 0.0, 0.0, 0.0) + entries("grad_norm", 1.0, INF, NAN, NAN), "grad_norm became inf at step 20"),
        ([{"loss": NAN, "current_steps": 7}], "loss became nan at step 7"),
    ],
)
def test_says_which_figure_was_lost_and_since_when(history: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(StageError, match=f"training diverged: {said}") as raised:
        require_numbers(history)
    assert raised.value.hint == "Lower train.learning_rate."


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"learning_rate": 1e-4, "step": 1}],
        entries("loss", 2.0, 1.0, 0.0),
        entries("grad_norm", INF, INF, 3.0),  # fp16 finds its scale
        entries("grad_norm", 1.0, 1.0, 1.0, INF),  # fp16 leaves a step out
        entries("loss", 2.0, 1.0, NAN),  # not yet sure
    ],
)
def test_no_alarm_without_need(history: list[dict[str, Any]]) -> None:
    require_numbers(history)


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    losses, log = Losses(tmp_path), tmp_path / "trainer_log.jsonl"
    losses.look()
    log.write_text('{"current_steps": 1, "loss": 2.5}\n{"current_steps": 2, "lo')
    losses.look()
    log.write_text('{"current_steps": 1, "loss": NaN}\n')
    with pytest.raises(StageError, match="loss became nan at step 1"):
        losses.look()


def test_a_finished_training_is_judged_by_its_gradients_too(tmp_path: Path) -> None:
    history = entries("grad_norm", 1.0, NAN, NAN, NAN)
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    with pytest.raises(StageError, match="grad_norm became nan at step 20"):
        require_finished(tmp_path)
