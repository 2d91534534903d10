"""Rows a second when held-out rows are answered, start-up left out: llama.cpp against LLaMA-Factory's predict."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import LLAMAFACTORY, Bench, Row, median, run
from benchmarks.work import NEWS_SMALL, by_hand_folder, finished, newest
from orchestrator.lib import layout
from orchestrator.lib.files import read_json
from orchestrator.models.gguf import GgufModel

BATCHES = (8, 16, 32, 64)


def evaluation(bench: Bench) -> None:
    """Row 7."""
    folder = newest(finished(bench, NEWS_SMALL))
    hand = by_hand_folder(bench.work, NEWS_SMALL, folder)
    (hand / "train").symlink_to(folder / "train")
    ours, bare = [], []
    for _ in range(bench.repeats):
        ours.append(gguf_rows_per_second(folder))
        bare.append({batch: predict_rows_per_second(hand, batch) for batch in BATCHES})
    best = max(BATCHES, key=lambda batch: median([one[batch] for one in bare]))
    theirs = [one[best] for one in bare]
    value = median(ours) / median(theirs)
    what = f"rows/s of the f16 GGUF over LLaMA-Factory's predict at its best batch size, {best}"
    bench.add(Row("evaluation", what, value, "≥ 3", value >= 3, ours, theirs))


def gguf_rows_per_second(folder: Path) -> float:
    """Answering alone; the model is loaded and its prompts are tokens."""
    rows = prompt_rows(folder)
    stops = read_json(folder / "data/serving.json")["stop"]
    with GgufModel(next((folder / "export").glob("*-f16.gguf"))) as model:
        started = time.perf_counter()
        answers = list(model.answers([row["ids"] for row in rows], 16, model.stops(stops)))
        return len(answers) / (time.perf_counter() - started)


def predict_rows_per_second(folder: Path, batch: int) -> float:
    """As LLaMA-Factory reports it."""
    run([LLAMAFACTORY, "train", "configs/predict-tuned.yaml", f"per_device_eval_batch_size={batch}",
         f"output_dir=evaluation/batch-{batch}"], folder)  # fmt: skip
    return float(read_json(folder / f"evaluation/batch-{batch}/predict_results.json")["predict_samples_per_second"])


def vllm(bench: Bench) -> None:
    """On a GPU with vLLM: the merged model there against LLaMA-Factory's predict with transformers."""
    if not importlib.util.find_spec("vllm"):
        print("skipped  vllm         vLLM is not installed")
        return
    folder = newest(finished(bench, NEWS_SMALL))
    hand = by_hand_folder(bench.work, NEWS_SMALL, folder)
    (hand / "train").symlink_to(folder / "train")
    bare = [predict_rows_per_second(hand, 32) for _ in range(bench.repeats)]
    ours = [vllm_rows_per_second(folder) for _ in range(bench.repeats)]
    value = median(ours) / median(bare)
    bench.add(Row("vllm", "rows/s of vLLM over predict at 32", value, "≥ 1", value >= 1, ours, bare))


def vllm_rows_per_second(folder: Path) -> float:
    """Answering alone, greedily, from the prompts' token ids; the model is loaded."""
    from vllm import LLM, SamplingParams

    prompts = [{"prompt_token_ids": row["ids"]} for row in prompt_rows(folder)]
    model = LLM(model=str(folder / layout.MERGED), enforce_eager=True)
    started = time.perf_counter()
    model.generate(prompts, SamplingParams(temperature=0.0, max_tokens=16))
    return len(prompts) / (time.perf_counter() - started)


def prompt_rows(folder: Path) -> list[dict[str, Any]]:
    """The held-out rows as they are asked."""
    return [json.loads(line) for line in (folder / layout.PROMPTS).read_text(encoding="utf-8").splitlines()]
