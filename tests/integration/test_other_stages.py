"""Real trainings other than sft with LoRA, on the tiny model; what is measured must be what LLaMA-Factory measured."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs.store import Run
from tests.conftest import LABELS, WORDS, rows, run_tool, write_tree

pytestmark = pytest.mark.slow

SPEC = """\
name: {name}
model: {{base: "{base}", template: smollm2}}
data: {{train: data/train.json, eval: data/eval.json}}
train:
  stage: {stage}
  learning_rate: 5.0e-3
  max_steps: 4
  per_device_train_batch_size: 4
  per_device_eval_batch_size: 12
  gradient_accumulation_steps: 1
  cutoff_len: 128
  logging_steps: 1
  eval_strategy: steps
  eval_steps: 4
evaluate: {{task: generation, max_new_tokens: 4}}
export: {{gguf: [f16], gate: {{min_agreement: 0, max_accuracy_drop: 1}}}}
"""


def pairs(count: int, first: int) -> list[dict[str, Any]]:
    """Questions with the right label chosen over the wrong one."""
    made = []
    for row in rows(count, first):
        question, answer = row["conversations"]
        other = LABELS[answer["value"] == LABELS[0]]
        made.append({"conversations": [question], "chosen": answer, "rejected": {"from": "gpt", "value": other}})
    return made


def thumbs(count: int, first: int) -> list[dict[str, Any]]:
    """Two right answers to every wrong one."""
    made = []
    for number, pair in enumerate(pairs(count, first)):
        good = number % 3 != 0
        answer = pair["chosen"] if good else pair["rejected"]
        made.append({"conversations": [*pair["conversations"], answer], "kto_tag": good})
    return made


def texts(count: int, first: int) -> list[dict[str, Any]]:
    """Texts that share too few words to be taken for copies."""
    words = [left + right for left in WORDS.split() for right in WORDS.split()]
    found = (" ".join(random.Random(first + number).sample(words, 12)) for number in range(count))
    return [{"text": f"新闻 {text}"} for text in found]


DATA = {"dpo": pairs, "rm": pairs, "kto": thumbs, "pt": texts}


def train(folder: Path, base: str, stage: str, *options: str, command: str = "evaluate") -> Path:
    """Carry the chain out; returns the run's folder."""
    make = DATA[stage]
    tree = {
        "spec.yaml": SPEC.format(name=stage, base=base, stage=stage),
        "data/train.json": json.dumps(make(24, 0)),
        "data/eval.json": json.dumps(make(12, 100)),
    }
    write_tree(folder, tree)
    settings = [word for option in options for word in ("--set", f"train.{option}")]
    done = run_tool((command, *settings), folder)
    assert done.code == 0, done.stderr
    return next((folder / "runs").glob("*/run.json")).parent


def measured(run: Path, artifact: str = "tuned") -> dict[str, Any]:
    figures = json.loads((run / "run.json").read_text())["metrics"][artifact]
    return {name: figure["value"] for name, figure in figures.items() if name != "n"}


def logged(run: Path) -> dict[str, float]:
    """What LLaMA-Factory measured on the same rows at the end of its training."""
    history = json.loads((run / "train/trainer_state.json").read_text())["log_history"]
    return next(entry for entry in reversed(history) if "eval_loss" in entry)


def answers(run: Path, artifact: str) -> list[str]:
    lines = (run / f"evaluation/{artifact}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prediction"].strip() for line in lines]


def perplexity_logged(run: Path, first: int = 100) -> float:
    """From eval_loss, which transformers divides by one token more a row than there are predictions."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(run / "train"))
    predicted = [len(tokenizer.encode(row["text"], add_special_tokens=False)) - 1 for row in texts(12, first)]
    return math.exp(logged(run)["eval_loss"] * (sum(predicted) + len(predicted)) / sum(predicted))


def test_dpo_goes_on_from_an_sft_run(shipped_run: Run, tmp_path: Path) -> None:
    run = train(tmp_path, f"run:{shipped_run.folder}", "dpo", command="run")
    found, own = measured(run), logged(run)
    assert found["reward_accuracy"] == pytest.approx(100 * own["eval_rewards/accuracies"])
    assert found["reward_margin"] == pytest.approx(own["eval_rewards/margins"], rel=1e-3)
    assert found["reward_margin"] != 0
    assert set(measured(run, "base")) >= {"preference_accuracy", "rougeL"}
    record = json.loads((run / "run.json").read_text())
    assert record["lineage"]["base_model"]["run"] == shipped_run.id
    assert record["stages"]["judge"]["status"] == "completed"
    assert record["metrics"]["gguf-f16"]["n"] == 12
    parity = json.loads((run / "evaluation/gguf-f16.parity.json").read_text())
    assert parity["equal_prompts"] == parity["compared"] == 12


def test_dpo_goes_on_from_the_adapter_of_an_sft_run(shipped_run: Run, tmp_path: Path) -> None:
    run = train(tmp_path, f"run:{shipped_run.folder}@adapter", "dpo", command="run")
    found, own = measured(run), logged(run)
    assert found["reward_accuracy"] == pytest.approx(100 * own["eval_rewards/accuracies"])
    assert found["reward_margin"] == pytest.approx(own["eval_rewards/margins"], rel=1e-3)
    assert answers(run, "base") == answers(shipped_run.folder, "gguf-f16")
    record = json.loads((run / "run.json").read_text())
    assert record["lineage"]["base_model"]["run"] == shipped_run.id
    assert record["lineage"]["base_model"]["name"].endswith("@adapter")
    assert record["metrics"]["gguf-f16"]["agreement_with_tuned"]["value"] > 80  # near ties of a tiny model


def test_a_full_pretraining_has_a_perplexity(tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, str(tiny_model), "pt", "finetuning_type=full", "packing=false", command="run")
    assert measured(run)["perplexity"] == pytest.approx(perplexity_logged(run), rel=0.01)
    assert measured(run)["perplexity"] != pytest.approx(measured(run, "base")["perplexity"], rel=0.02)
    of_gguf = measured(run, "gguf-f16")["perplexity"]
    assert of_gguf == pytest.approx(measured(run)["perplexity"], rel=0.005)
    assert of_gguf != pytest.approx(measured(run, "base")["perplexity"], rel=0.02)
    parity = json.loads((run / "evaluation/gguf-f16.parity.json").read_text())
    assert parity["equal_prompts"] == parity["compared"] == 12
    again = run_tool(("run", *LIKE_BEFORE, "--set", "export.gate.max_perplexity_rise=0"), tmp_path)
    assert again.code == (5 if of_gguf > measured(run)["perplexity"] else 0)
    assert "gguf-f16" in again.stdout and "perplexity (95 %)" in again.stdout


LIKE_BEFORE = ("--set", "train.finetuning_type=full", "--set", "train.packing=false")
METHODS = {
    "freeze": ("finetuning_type=freeze", "freeze_trainable_layers=1"),
    "oft": ("finetuning_type=oft", "oft_block_size=8"),
    "dora": ("use_dora=true",),
    "rslora": ("use_rslora=true",),
    "pissa": ("pissa_init=true", "pissa_convert=true"),
    "pissa-unconverted": ("pissa_init=true",),
    "neftune": ("neftune_noise_alpha=5",),
    "best": ("save_strategy=steps", "save_steps=2", "eval_steps=2", "load_best_model_at_end=true",
             "early_stopping_steps=1"),
}  # fmt: skip


@pytest.mark.nightly
@pytest.mark.parametrize("method", METHODS)
def test_the_model_that_is_measured_is_the_one_that_was_trained(method: str, tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, str(tiny_model), "pt", "packing=false", *METHODS[method])
    if method == "best":
        state = json.loads((run / "train/trainer_state.json").read_text())
        assert state["best_model_checkpoint"]
        assert measured(run)["perplexity"] < measured(run, "base")["perplexity"] * 1.5
    else:
        assert measured(run)["perplexity"] == pytest.approx(perplexity_logged(run), rel=0.01)
        assert measured(run)["perplexity"] != pytest.approx(measured(run, "base")["perplexity"], rel=1e-4)


@pytest.mark.nightly
def test_packed_texts(tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, str(tiny_model), "pt", "packing=true")
    assert measured(run)["perplexity"] > 1


@pytest.mark.nightly
def test_a_reward_model_scores_pairs(tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, str(tiny_model), "rm")
    assert measured(run)["preference_accuracy"] == pytest.approx(100 * logged(run)["eval_accuracy"])
    assert not (run / "export").exists()


@pytest.mark.nightly
def test_kto_agrees_on_the_margin(tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, str(tiny_model), "kto")
    assert measured(run)["reward_margin"] == pytest.approx(logged(run)["eval_rewards/margins"], rel=1e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("loss", ["ipo", "simpo"])
def test_other_losses_agree_on_the_margin(loss: str, tiny_model: Path, tmp_path: Path) -> None:
    run = train(tmp_path, str(tiny_model), "dpo", f"pref_loss={loss}", "finetuning_type=full")
    assert measured(run)["reward_margin"] == pytest.approx(logged(run)["eval_rewards/margins"], rel=1e-3)
