"""What `speed: auto` chooses, and that it never overrides the user or memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.models.card import Card, advice
from orchestrator.models.shape import Model
from orchestrator.models.situation import Situation, barred
from orchestrator.models.speed import MICRO, for_predicting, for_training, forecast, remarks, whole_logits
from orchestrator.stages.llamafactory import hastened
from tests.conftest import write_tree

BASE = Model(4 * 134_515_008, 134_515_008, (("q_proj", 576, 576),) * 30, 576, 1536, 30, 9, 384, 49152)
TRAINING: dict[str, Any] = {
    "stage": "sft",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
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
    always = ("answer_logits=true", "by_length=true")
    assert [choice.argument for choice in chosen if choice.argument not in always] == expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"stage": "dpo"}, ""),
        ({"stage": "rm"}, "stage rm"),
        ({"stage": "pt"}, "packing"),
        ({"stage": "pt", "packing": False}, ""),
        ({"packing": True}, "packing"),
        ({"use_dft_loss": True}, "the dft loss"),
        ({"label_smoothing_factor": 0.1}, "label smoothing"),
        ({"compute_accuracy": True}, "compute_accuracy"),
        ({"enable_liger_kernel": True}, "Liger's own loss"),
        ({"quantization_bit": 4}, "a quantised model"),
        ({"trust_remote_code": True}, "the model's own code"),
    ],
)
def test_logits_are_left_out_only_where_no_loss_needs_them(change: dict[str, Any], why: str) -> None:
    now = Situation({**TRAINING, **change}, BASE, 100, 16 * 2**30)
    assert whole_logits(now) == why
    assert ("answer_logits=true" in arguments(now)) == (not why)
    assert whole_logits(replace(now, barred="several processes")) == (why or "several processes")
    assert (("logits of every token", f"computed, because of {why}") in remarks(now)) == bool(why)


@pytest.mark.parametrize(
    ("change", "longest", "answer", "free_gib", "expected"),
    [
        ({}, 16, 7, 20, (16, 1)),
        ({}, 30, 7, 20, (8, 2)),  # a processor gains nothing by more
        ({}, 30, None, 20, (8, 2)),
        ({}, 30, 7, 2, (4, 4)),
        ({}, 100, 7, 20, (4, 4)),
        ({"mean": 20.0}, 100, 7, 20, (4, 4)),  # the others would be padded to the longest
        ({"lora_dropout": 0.1}, 30, 7, 20, (4, 4)),
        ({"dataloader_drop_last": True}, 30, 7, 20, (4, 4)),
        ({"stage": "dpo"}, 30, 7, 20, (4, 4)),
        ({"stage": "kto"}, 30, 7, 20, (4, 4)),
    ],
)
def test_a_step_is_few_large_micro_batches_where_memory_affords_them_and_the_result_is_the_same(
    change: dict[str, Any], longest: int, answer: int | None, free_gib: float, expected: tuple[int, int]
) -> None:
    mean = change.pop("mean", longest)
    now = Situation({**TRAINING, **change}, BASE, longest, free_gib * 2**30, answer, mean, unset=MICRO)
    chosen = dict(argument.split("=") for argument in arguments(now))
    assert tuple(int(chosen.get(name, TRAINING[name])) for name in MICRO) == expected
    written = replace(now, unset=())
    assert not set(MICRO) & {argument.split("=")[0] for argument in arguments(written)}
    assert bool([name for name, _ in remarks(written) if "instead of your 4 × 4" in name]) == (expected != (4, 4))
    several, alike = int(chosen.get(MICRO[1], 4)) > 1, {"stage": "sft", **change}["stage"] == "sft" and len(change) == 0
    assert ("by_length" in chosen) == (several and alike)


def arguments(now: Situation) -> list[str]:
    return [choice.argument for choice in for_training(now)]


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
    always = [] if change == {"bf16": True} else ["by_length=true", "shared_prefix=true"]
    assert [choice.argument for choice in chosen] == [*always, *expected]


def test_of_an_unknown_architecture_only_its_logits_are_chosen() -> None:
    unknown = Situation({**TRAINING, "max_new_tokens": 16}, None, 1, 2**40)
    assert arguments(unknown) == ["answer_logits=true"]
    assert for_predicting(unknown) == []


def test_rows_count_as_long_as_measured_and_before_that_as_long_as_allowed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "free_memory", lambda: 16 * 2**30)
    arguments = {**TRAINING, "model_name_or_path": str(tiny_model)}
    files = {layout.config("train"): "cutoff_len: 1024\n"}
    step = Step("train", "train", ("llamafactory-cli",), files=files, arguments=arguments)
    assert list(forecast(step, tmp_path)) == ["answer_logits=true", "speed: auto"]
    (tmp_path / "data").mkdir()
    (tmp_path / layout.SERVING).write_text('{"tokens": {"longest": 90, "longest_answer": 9}}')
    assert list(forecast(step, tmp_path))[:2] == ["answer_logits=true", *OFF]
    made = hastened(step, tmp_path)
    assert yaml.safe_load(made.files[layout.config("train")]) == {
        "cutoff_len": 1024,
        "disable_gradient_checkpointing": True,
    }
    assert made.argv[-2:] == ("llamafactory", "configs/train-speed.json")
    assert hastened(step, tmp_path, share=0.0) == step
    own = replace(step, files={layout.config("train"): "disable_gradient_checkpointing: false\n"})
    assert hastened(own, tmp_path).files[layout.config("train")] == own.files[layout.config("train")]
    assert forecast(Step("merge", "export", ()), tmp_path) == {}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"config.json": '{"model_type": "llama"}'}, ""),
        ({"config.json": '{"model_type": "gpt_of_tomorrow"}'}, "transformers' gpt_of_tomorrow takes no logits_to_keep"),
        ({"config.json": '{"model_type": "llama"}', "processor_config.json": "{}"}, "a model of more than text"),
    ],
)
def test_which_models_can_do_without_all_logits(tmp_path: Path, files: dict[str, str], why: str) -> None:
    assert barred(write_tree(tmp_path, files)) == why


H100, T4 = Card((9, 0), frozenset({"liger_kernel", "flash_attn"})), Card((7, 5), frozenset())


@pytest.mark.parametrize(
    ("change", "card", "expected"),
    [
        ({}, H100, ["bf16: true", "flash_attn: fa2", "enable_liger_kernel: true"]),
        ({"bf16": True, "flash_attn": "sdpa"}, H100, ["enable_liger_kernel: true"]),
        ({"stage": "dpo", "pure_bf16": True}, H100, ["flash_attn: fa2"]),
        ({"enable_liger_kernel": True, "fp16": True}, replace(H100, packages=frozenset({"liger_kernel"})), []),
        ({}, T4, []),
        ({"use_cpu": True}, H100, []),
    ],
)
def test_what_a_gpu_could_do_besides_is_said_with_a_forecast(
    change: dict[str, Any], card: Card, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: [{"name": "NVIDIA H100"}])
    now = Situation({**TRAINING, **change}, BASE, 512, 80 * 2**30)
    found = dict(advice(now, card))
    assert list(found) == expected
    if "bf16: true" in expected:
        assert found["bf16: true"] == "half precision on this GPU: about 2.9 GiB instead of 3.9"
