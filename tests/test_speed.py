"""What `speed: auto` chooses, and that it never overrules the user or memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.models import speed
from orchestrator.models.shape import Model
from orchestrator.models.speed import Situation, for_predicting, for_training, forecast, hastened

BASE = Model(4 * 134_515_008, 134_515_008, (("q_proj", 576, 576),) * 30, 576, 1536, 30, 9, 384, 49152)
TRAINING: dict[str, Any] = {
    "stage": "sft",
    "per_device_train_batch_size": 4,
    "finetuning_type": "lora",
    "cutoff_len": 1024,
}
OFF = ["disable_gradient_checkpointing=true"]


@pytest.mark.parametrize(
    ("change", "longest", "free_gib", "expected"),
    [
        ({}, 100, 16, OFF),
        ({}, 100, 4, []),
        ({}, 1024, 16, []),
        ({"per_device_train_batch_size": 32}, 100, 16, []),
        ({"finetuning_type": "full"}, 100, 12, []),
        ({"disable_gradient_checkpointing": False}, 100, 16, []),
        ({"gradient_checkpointing": True}, 100, 16, []),
        ({"quantization_bit": 4}, 100, 16, []),
        ({"deepspeed": "ds.json"}, 100, 16, []),
    ],
)
def test_checkpointing_goes_only_where_memory_and_the_user_allow(
    change: dict[str, Any], longest: int, free_gib: float, expected: list[str]
) -> None:
    chosen = for_training(Situation({**TRAINING, **change}, BASE, longest, free_gib * 2**30))
    assert [choice.argument for choice in chosen] == expected


@pytest.mark.parametrize(
    ("change", "longest", "free_gib", "expected"),
    [
        ({}, 100, 16, ["per_device_eval_batch_size=32"]),
        ({}, 100, 4, []),
        ({}, 8192, 16, []),
        ({"per_device_eval_batch_size": 2}, 100, 16, []),
        ({"bf16": True}, 100, 16, []),
    ],
)
def test_more_rows_are_answered_together_where_memory_the_user_and_rounding_allow(
    change: dict[str, Any], longest: int, free_gib: float, expected: list[str]
) -> None:
    chosen = for_predicting(Situation({"max_new_tokens": 16, **change}, BASE, longest, free_gib * 2**30))
    assert [choice.argument for choice in chosen] == expected


def test_an_unknown_architecture_is_left_alone() -> None:
    unknown = Situation({**TRAINING, "max_new_tokens": 16}, None, 1, 2**40)
    assert for_training(unknown) == for_predicting(unknown) == []


def test_rows_count_as_long_as_measured_and_before_that_as_long_as_allowed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "free_memory", lambda: 16 * 2**30)
    arguments = {**TRAINING, "model_name_or_path": str(tiny_model)}
    files = {layout.config("train"): "cutoff_len: 1024\n"}
    step = Step("train", "train", ("llamafactory-cli",), files=files, arguments=arguments)
    assert list(forecast(step, tmp_path)) == ["speed: auto"]
    assert hastened(step, tmp_path) == step
    (tmp_path / "data").mkdir()
    (tmp_path / layout.SERVING).write_text('{"tokens": {"longest": 90}}')
    assert list(forecast(step, tmp_path)) == OFF
    written = hastened(step, tmp_path).files[layout.config("train")]
    assert yaml.safe_load(written) == {"cutoff_len": 1024, "disable_gradient_checkpointing": True}
    assert hastened(step, tmp_path, share=0.0) == step
    own = replace(step, files={layout.config("train"): "disable_gradient_checkpointing: false\n"})
    assert hastened(own, tmp_path) == own  # a project's own template may say it
    assert speed.forecast(Step("merge", "export", ()), tmp_path) == {}
