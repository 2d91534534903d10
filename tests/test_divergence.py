"""A training that lost its numbers has failed, as soon as its log says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.lib.errors import Diverged, StageError
from orchestrator.models import finite
from orchestrator.models.finite import Losses, Lost, first_lost, require_finished, require_finite, require_numbers

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


def finished(folder: Path, train_loss: float, **weights: Any) -> Path:
    """What a training of fewer steps than `logging_steps` leaves: its log holds no loss."""
    last = {"step": 6, "train_loss": train_loss, "train_runtime": 3.8}
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": [last]}))
    (folder / "all_results.json").write_text(json.dumps({"epoch": 1.0, "train_loss": train_loss}))
    save_file(weights or {"lora_A": np.ones((4, 4), np.float32)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("lost", [NAN, INF])
def test_a_training_too_short_to_log_a_loss_is_judged_by_its_mean(tmp_path: Path, lost: float) -> None:
    with pytest.raises(Diverged, match=f"training diverged: the mean loss over all steps is {lost}"):
        require_finished(finished(tmp_path, lost))
    require_finished(finished(tmp_path, 2.5))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("lost", [NAN, INF, -INF])
def test_a_single_weight_that_is_no_number_is_found(tmp_path: Path, kind: Any, lost: float) -> None:
    sound = np.array([[0.0, -1.5, np.finfo(kind).max], [np.finfo(kind).tiny, 3.0, -0.0]], kind)
    broken = sound.copy()
    broken[1, 1] = lost
    require_finished(finished(tmp_path, 1.0, up=sound))
    with pytest.raises(Diverged, match=r"not finite in adapter_model\.safetensors \(1 of down\)"):
        require_finished(finished(tmp_path, 1.0, up=sound, down=broken))


def raw(folder: Path, name: str, kind: str, content: bytes) -> None:
    """A safetensors file of one tensor, of types that numpy does not know as well."""
    size = {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U8": 1}[kind]
    entry = {"dtype": kind, "shape": [len(content) // size], "data_offsets": [0, len(content)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + content)


@pytest.mark.parametrize(
    ("kind", "sound", "lost"),
    [
        ("BF16", "7f7f 8000 803f", "807f c07f 80ff"),
        ("F8_E5M2", "7b fb 00", "7c fc 7e"),
        ("F8_E4M3", "7e fe 00", "7f ff 7f"),
        ("U8", "ff 7f 7c", ""),
    ],
)
def test_types_that_numpy_does_not_know(tmp_path: Path, kind: str, sound: str, lost: str) -> None:
    good = bytes.fromhex(sound)
    raw(tmp_path, "model-00001-of-00002.safetensors", kind, good)
    assert first_lost(tmp_path) is None
    if lost:
        raw(tmp_path, "model-00002-of-00002.safetensors", kind, good + bytes.fromhex(lost))
        assert first_lost(tmp_path) == Lost("model-00002-of-00002.safetensors", "weight", 3)


def test_large_tensors_are_looked_at_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "AT_ONCE", 7)
    weights = np.zeros(100, np.float16)
    weights[[3, 99]] = NAN
    save_file({"w": weights}, tmp_path / "model.safetensors")
    assert first_lost(tmp_path) == Lost("model.safetensors", "w", 2)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(StageError, match=r"adapter_model\.safetensors is no safetensors file"):
        require_finite(tmp_path)
