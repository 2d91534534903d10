"""Rows with tools through the whole chain: a GGUF is asked the tokens of training and calls as the tuned model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_tool, write_tree

ROOT = Path(__file__).parents[2]
SPEC = """
name: tools
model: {{base: {model}, template: qwen}}
data: {{train: train.json, eval: eval.json, system: 你好。}}
train: {{finetuning_type: full, learning_rate: 5.0e-3, num_train_epochs: 2, per_device_train_batch_size: 4}}
evaluate: {{task: tools, max_new_tokens: 24, baseline: false, turns: all, better_than: []}}
export: {{gguf: [f16]}}
"""


@pytest.mark.slow
def test_rows_with_tools_go_through_the_whole_chain(tmp_path: Path, tiny_model: Path) -> None:
    train, held_out = (rows(name)[:count] for name, count in (("train", 24), ("eval", 8)))
    tree = {
        "train.json": json.dumps(train),
        "eval.json": json.dumps(held_out),
        "spec.yaml": SPEC.format(model=tiny_model),
    }
    done = run_tool(("run",), write_tree(tmp_path, tree))

    (record,) = (json.loads(file.read_text()) for file in tmp_path.glob("runs/*/run.json"))
    assert done.code in (0, 5), done.stderr  # so small a model may only repeat itself, which the gate says
    assert set(record["metrics"]) == {"tuned", "gguf-f16"}
    answers = sum(turn["from"] in ("gpt", "function_call") for row in held_out for turn in row["conversations"])
    (parity,) = (json.loads(file.read_text()) for file in tmp_path.glob("runs/*/evaluation/gguf-f16.parity.json"))
    assert parity["compared"] == parity["equal_prompts"] == parity["rows"] == answers
    figures = record["metrics"]["gguf-f16"]
    assert figures["agreement_with_tuned"]["value"] >= 75  # near ties of so small a model fall either way
    assert {"call_accuracy", "name_accuracy", "argument_f1", "missed_calls", "spurious_calls"} <= set(figures)


def rows(name: str) -> list[dict[str, Any]]:
    return list(json.loads((ROOT / f"datasets/tools/{name}.json").read_text(encoding="utf-8")))
