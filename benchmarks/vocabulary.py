"""Peak memory of a training with a vocabulary as today's models have it, where logits are what takes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.chain import fresh
from benchmarks.harness import LLAMAFACTORY, ORCHESTRATOR, ROOT, Bench, ratio, run
from benchmarks.work import Job, by_hand_folder, newest, settings

VOCABULARY = 151_936
"""Qwen's."""
HEADLINES_EACH = 12
ROWS = 12
SETTINGS = (
    "train={per_device_train_batch_size: 4, gradient_accumulation_steps: 1, max_steps: 2, logging_steps: 1,"
    " disable_gradient_checkpointing: false, save_strategy: 'no'}"
)


def vocabulary(bench: Bench) -> None:
    """The same micro-batches and checkpointing in both ways; the trainings alone, each a process of its own."""
    model, data = make_model(fresh(bench.work / "vocabulary-model")), make_rows(bench.work / "vocabulary-rows")
    job = Job("vocabulary", (f"model={{base: {model}, template: smollm2}}", held(data), SETTINGS))
    runs_dir = fresh(bench.work / "vocabulary")
    run([ORCHESTRATOR, "train", *settings(bench, job, runs_dir)])
    folder = by_hand_folder(bench.work, job, newest(runs_dir))
    faster = [sys.executable, "-m", "orchestrator.stages", "llamafactory", "configs/train-speed.json"]
    ours, bare = [], []
    for _ in range(bench.repeats):
        ours.append(run(faster, folder).tree_mib)
        fresh(folder / "train")
        bare.append(run([LLAMAFACTORY, "train", "configs/train.yaml"], folder).tree_mib)
        fresh(folder / "train")
    what = f"peak of training with {VOCABULARY:,} tokens over the defaults'"
    note = f"{ours[0] / 1024:.1f} and {bare[0] / 1024:.1f} GiB; same micro-batches, both with checkpointing"
    bench.add(ratio("vocabulary", what, 0.4, ours, bare, note))


def make_model(folder: Path) -> Path:
    """A small random model with a large vocabulary; the tokenizer is the built-in model's."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from orchestrator.models.sources import resolve

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(resolve("builtin:smollm2-135m-instruct"))).save_pretrained(str(folder))
    return folder


def make_rows(folder: Path) -> Path:
    """Long questions with short answers: several headlines of the shipped set, and the topic of the first."""
    rows = json.loads((ROOT / "datasets/news/train.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, first in (("train", 0), ("eval", ROWS)):
        made = [joined(rows[number * HEADLINES_EACH :][:HEADLINES_EACH]) for number in range(first, first + ROWS)]
        (folder / f"{name}.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    return folder


def held(folder: Path) -> str:
    """The data section."""
    return f"data={{train: {folder / 'train.json'}, eval: {folder / 'eval.json'}}}"


def joined(rows: list[dict[str, object]]) -> dict[str, object]:
    """One row of several."""
    texts = [str(turns[0]["value"]) for row in rows if isinstance(turns := row["conversations"], list)]
    last = rows[0]["conversations"]
    assert isinstance(last, list)
    return {"conversations": [{"from": "human", "value": "\n".join(texts)}, last[-1]]}
