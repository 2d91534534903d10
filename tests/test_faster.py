"""Trainers that compute less: the losses and gradients are those of LLaMA-Factory's own, and so is what is recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from orchestrator.lib import layout
from orchestrator.lib.files import HashCache
from orchestrator.lib.step import Step
from orchestrator.models import speed
from orchestrator.pipeline.scheduler import adopt
from orchestrator.pipeline.workflow import chosen_before
from orchestrator.runs import proof, store
from orchestrator.stages.llamafactory import with_choices
from orchestrator.stages.trainers import (
    ANSWER_LOGITS,
    IGNORED,
    answer_loss,
    answer_pairs,
    answer_tags,
    by_length,
    can_narrow,
    dealt,
    kept,
    prefix_first,
    shared_prefix,
)
from tests.warm_tool import told

NO = IGNORED
LABELS = [[NO, NO, NO, 7, 8, NO, NO, NO], [NO, NO, 5, NO, NO, 6, 9, NO], [NO] * 8]
"""An answer, two answers, and none."""


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """The tiny model with an adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(str(tiny_model))
    made = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    made.accelerator = SimpleNamespace(unwrap_model=lambda one: one)
    return made


def batch() -> dict[str, Any]:
    """Three rows, and which tokens carry a loss."""
    import torch

    ids = torch.arange(24).reshape(3, 8) + 100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(LABELS)}


def gradients(model: Any, loss: Any) -> Any:
    """Of the adapter, in one row."""
    import torch

    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_positions_are_those_that_predict_a_token_with_a_loss() -> None:
    import torch

    positions, labels = kept(torch.tensor(LABELS))
    assert labels.tolist() == [[NO, 7, 8, NO], [NO, 5, 6, 9], [NO, NO, NO, NO]]
    assert positions.tolist()[:2] == [[2, 3, 0, 0], [1, 4, 5, 0]]


def test_the_loss_of_answers_and_its_gradients_are_those_of_whole_rows(model: Any) -> None:
    import torch

    class Own:
        def compute_loss(self, model: Any, inputs: Any) -> Any:
            return model(**inputs, num_items_in_batch=torch.tensor(5))

    whole = Own().compute_loss(model, batch())
    own = gradients(model, whole.loss)
    found = answer_loss(Own)().compute_loss(model, batch())
    assert (whole.logits.shape[1], found.logits.shape[1]) == (8, 4)
    assert found.loss.item() == pytest.approx(whole.loss.item(), abs=1e-5)
    assert torch.allclose(gradients(model, found.loss), own, atol=1e-6)
    assert model(**batch()).logits.shape[1] == 8  # nothing stays behind


def test_preferences_see_the_same_probabilities(model: Any) -> None:
    import torch
    from llamafactory.train.trainer_utils import get_batch_logps

    class Own:
        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            labels = batch.pop("labels")
            return get_batch_logps(model(**batch).logits, labels)

        def forward(self, model: Any, batch: Any, prefix: str = "") -> Any:
            logits = model(batch[f"{prefix}input_ids"]).logits
            return get_batch_logps(logits, batch[f"{prefix}labels"])

    def pair() -> dict[str, Any]:
        return {name: rows[[0, 1]] for name, rows in batch().items()}

    whole, counts = Own().concatenated_forward(model, pair())
    found, same = answer_pairs(Own)().concatenated_forward(model, pair())
    assert torch.allclose(whole, found, atol=1e-5)
    assert counts.tolist() == same.tolist() == [2, 3]
    tagged = {f"kl_{name}": rows for name, rows in pair().items()}
    found, _ = answer_tags(Own)().forward(model, tagged, "kl_")
    assert torch.allclose(whole, found, atol=1e-5)


def test_a_model_that_takes_no_logits_to_keep_is_left_alone(model: Any) -> None:
    class Old:
        def forward(self, input_ids: Any) -> None: ...

    assert can_narrow(model)
    assert not can_narrow(Old())


def test_answers_come_back_in_the_order_of_the_rows() -> None:
    import numpy as np
    from transformers.trainer_utils import PredictionOutput

    from datasets import Dataset

    class Own:
        def predict(self, rows: Any, **kwargs: Any) -> Any:
            self.seen = [len(ids) for ids in rows["input_ids"]]
            answers = np.array([[ids[0]] for ids in rows["input_ids"]])
            return PredictionOutput(answers, answers + 1, {"predict_runtime": 1.0})

    trainer = by_length(Own)()
    found = trainer.predict(Dataset.from_dict({"input_ids": [[1], [2, 2, 2], [3, 3], [4, 4, 4, 4]]}))
    assert trainer.seen == [4, 3, 2, 1]
    assert found.predictions.tolist() == [[1], [2], [3], [4]]
    assert found.label_ids.tolist() == [[2], [3], [4], [5]]


def test_what_prompts_begin_with_is_put_before_what_fills_them() -> None:
    import torch

    def batch(*rows: list[int]) -> dict[str, Any]:
        return {"input_ids": torch.tensor(rows), "attention_mask": (torch.tensor(rows) > 0).long()}

    moved = prefix_first(batch([0, 0, 7, 8, 1], [7, 8, 2, 3, 4], [0, 7, 8, 5, 6]), 2)
    wanted = batch([7, 8, 0, 0, 1], [7, 8, 2, 3, 4], [7, 8, 0, 5, 6])
    assert all(torch.equal(moved[name], wanted[name]) for name in wanted)


def test_answers_are_the_same_behind_a_prefix_that_is_computed_once(model: Any) -> None:
    import torch

    model.eval()
    rows = [[*range(5, 25), *more] for more in ([31], [41, 42, 43, 44], [51, 52, 53])]
    widest = max(map(len, rows))
    filled = torch.tensor([[0] * (widest - len(row)) + row for row in rows])
    inputs = {"input_ids": filled, "attention_mask": (filled > 0).long()}

    class Own:
        def __init__(self) -> None:
            self.model, self._gen_kwargs = model, {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}

        def predict(self, rows: Any) -> Any:
            return self.prediction_step(model, inputs)

        def prediction_step(self, model: Any, inputs: dict[str, Any], **kwargs: Any) -> Any:
            with torch.no_grad():
                return model.generate(**inputs, **(kwargs or self._gen_kwargs))[:, widest:]

    shares = shared_prefix(Own)()
    assert shares.predict({"input_ids": rows}).tolist() == Own().predict(rows).tolist()
    assert shares.prefix.tokens == 20


def test_a_step_has_the_same_rows_in_micro_batches_with_less_padding() -> None:
    import torch

    def batch(*lengths: int) -> dict[str, Any]:
        widest = max(lengths)
        mask = torch.tensor([[1] * length + [0] * (widest - length) for length in lengths])
        ids = torch.tensor([[length] * length + [99] * (widest - length) for length in lengths])
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}

    made = dealt([batch(2, 7, 3), batch(6, 1)], padding=99)
    for one, wanted in zip(made, (batch(7, 6, 3), batch(2, 1)), strict=True):
        assert all(torch.equal(one[name], wanted[name]) for name in wanted)
    left = batch(2, 3)
    left["attention_mask"] = left["attention_mask"].flip(1)
    for as_they_were in ([batch(2, 3)], [left, left], [{**batch(2), "pixel_values": left["labels"]}] * 2):
        assert dealt(as_they_were, padding=99) is as_they_were


# ---- what is written and recorded

CONFIG = layout.config("train")
MICRO = {"per_device_train_batch_size": "16", "gradient_accumulation_steps": "1"}
CHOSEN = {speed.LOGITS: "true", speed.CHECKPOINTING: "true", **MICRO}


def training() -> Step:
    """A training whose micro-batches nobody chose."""
    text = "stage: sft\nper_device_train_batch_size: 4\ngradient_accumulation_steps: 4\nseed: 1\n"
    return Step(
        "train",
        "train",
        ("llamafactory-cli", "train", CONFIG),
        files={CONFIG: text},
        arguments=yaml.safe_load(text),
        unset=speed.MICRO,
    )


def test_what_ran_stands_in_the_configurations() -> None:
    made = with_choices(training(), CHOSEN)
    assert yaml.safe_load(made.files[CONFIG]) == {
        "stage": "sft", "seed": 1, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
        "disable_gradient_checkpointing": True,
    }  # fmt: skip
    assert made.argv[1:] == ("-m", "orchestrator.stages", "llamafactory", "configs/train-speed.json")
    assert '"answer_logits": true' in made.files["configs/train-speed.json"]
    assert made.speed == CHOSEN
    assert with_choices(training(), {}) == training()
    only_theirs = with_choices(training(), {speed.CHECKPOINTING: "true"})
    assert only_theirs.argv == training().argv


def test_a_configuration_of_the_users_own_division_keeps_it() -> None:
    step = training()
    text = step.files[CONFIG].replace("size: 4", "size: 2").replace("steps: 4", "steps: 8")
    own = Step(**{**{name: getattr(step, name) for name in step.__slots__}, "files": {CONFIG: text}})
    assert yaml.safe_load(with_choices(own, MICRO).files[CONFIG]) == yaml.safe_load(text)  # a project's own template


def test_a_configuration_that_is_written_again_or_reused_is_the_one_that_ran(tmp_path: Path) -> None:
    made = with_choices(training(), CHOSEN)
    run = store.create(tmp_path, "one", fingerprint="f", environment={})
    hashes = HashCache(tmp_path / "hashes.json")
    with written(run.folder, made):
        run.begin(made, "f", made.argv)
        run.end("train", "completed", 1.0, 0, [])
        run.set(status="completed", files=proof.kept(run, hashes))
        (run.folder / CONFIG).write_text("damaged")
    texts = with_choices(training(), run.stage("train")["speed"]).files
    proof.repair(run, texts, {"train"}, HashCache(tmp_path / "more.json", paranoid=True))
    assert (run.folder / CONFIG).read_text() == made.files[CONFIG]
    other = store.create(tmp_path, "two", fingerprint="f", environment={})
    adopt(training(), other, run, "f")
    assert {path: (other.folder / path).read_text() for path in made.files} == dict(made.files)


@contextlib.contextmanager
def written(folder: Path, step: Step) -> Iterator[None]:
    for path, text in step.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    yield


@pytest.mark.parametrize(
    ("entry", "like", "expected"),
    [
        ({"status": "completed", "fingerprint": "f", "speed": CHOSEN}, {}, CHOSEN),
        ({"status": "interrupted", "fingerprint": "f", "speed": CHOSEN}, {}, CHOSEN),
        ({"status": "completed", "fingerprint": "f"}, {}, {}),  # made plainly, or by an earlier version
        ({"status": "failed", "fingerprint": "f", "speed": CHOSEN}, {}, None),
        ({"status": "completed", "fingerprint": "other", "speed": CHOSEN}, {}, None),
        ({}, {}, None),
        ({}, {"train": CHOSEN}, CHOSEN),
        ({}, {"train": {}}, {}),
    ],
)
def test_what_is_repeated_is_done_as_before(entry: Any, like: Any, expected: Any) -> None:
    def run(entry: Any) -> Any:
        return SimpleNamespace(stage=lambda name: entry)

    steps = (SimpleNamespace(step=training(), fingerprint="f"),)
    project = SimpleNamespace(chosen=like)
    task: Any = SimpleNamespace(run=run(entry), target_plan=SimpleNamespace(steps=steps), project=project)
    assert chosen_before(task, training()) == expected


EXCHANGED = """
import importlib
from orchestrator.stages.llamafactory import LlamaFactory
from orchestrator.stages.trainers import ANSWER_LOGITS
from orchestrator.stages.trl import correct_flags

correct_flags()
for stage, (name, _) in ANSWER_LOGITS.items():
    LlamaFactory(config="train.yaml", answer_logits=True).exchange(stage)
    workflow = importlib.import_module(f"llamafactory.train.{stage}.workflow")
    trainer = importlib.import_module(f"llamafactory.train.{stage}.trainer")
    print("WHERE", stage, getattr(workflow, name, getattr(trainer, name)).__module__)
"""


def test_every_workflow_finds_our_trainer_where_it_looks_for_its_own() -> None:
    where = [line.split()[1:] for line in told(EXCHANGED).splitlines() if line.startswith("WHERE ")]
    assert [stage for stage, _ in where] == list(ANSWER_LOGITS)
    assert {module for _, module in where} == {"orchestrator.stages.llamafactory"}
