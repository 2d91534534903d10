"""The memory forecast against measured and published figures; the tables of docs/memory.md.

python -m benchmarks.memory --measure FILE.json    # minutes on 2 cores; goes on where it was interrupted
python -m benchmarks.memory FILE.json              # the tables, as Markdown
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.lib.process import child_environment
from orchestrator.models.memory import Forecast, MemoryInput, merge, predict, train
from orchestrator.models.shape import Model, read_model
from orchestrator.models.sources import resolve
from orchestrator.spec.sections import DEFAULTS

BASE = "builtin:smollm2-135m-instruct"
TOKENS = 256
"""Each row is longer, and so is cut to exactly this."""
NEW_TOKENS = 8


@dataclass(frozen=True)
class Case:
    """One stage with its settings, measured in a process of its own."""

    stage: str
    batch: int = 1
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Tells it from the others."""
        return " ".join([self.stage, str(self.batch), *(f"{k}={v}" for k, v in self.training.items())])


KEPT = {"disable_gradient_checkpointing": True}
CASES = [
    Case("train", 1), Case("train", 4), Case("train", 8), Case("train", 4, KEPT),
    Case("train", 1, {"finetuning_type": "full"}),
    Case("predict", 1), Case("predict", 8), Case("predict", 16), Case("merge"),
]  # fmt: skip
"""The first leaves the adapter that predict and merge load."""


# ---- measured on this machine


def measure(file: Path) -> None:
    """Measure the cases that are not in the file yet."""
    known: dict[str, int] = json.loads(file.read_text()) if file.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for case in CASES:
            if case.name not in known or case == CASES[0]:
                known[case.name] = peak(case, Path(folder))
                file.write_text(json.dumps(known, indent=2))
                print(f"{case.name}: {known[case.name] / 2**20:,.0f} MiB", file=sys.stderr, flush=True)


def write_data(folder: Path) -> None:
    """64 rows that fill the cut-off length."""
    turns = [{"from": "human", "value": "headline " * (TOKENS + 64)}, {"from": "gpt", "value": "Sports"}]
    (folder / "rows.json").write_text(json.dumps([{"conversations": turns}] * 64))
    info = {"rows": {"file_name": "rows.json", "formatting": "sharegpt"}}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def peak(case: Case, folder: Path) -> int:
    """The largest resident set, in bytes, of the process that a stage runs in."""
    config, log = folder / "config.yaml", folder / "log"
    config.write_text(json.dumps(arguments(case, folder), indent=1))  # JSON is YAML
    program = shutil.which("llamafactory-cli", path=child_environment({})["PATH"]) or "llamafactory-cli"
    argv = [program, "export" if case.stage == "merge" else "train", str(config)]
    to_log = [(os.POSIX_SPAWN_OPEN, fd, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for fd in (1, 2)]
    _, status, usage = os.wait4(os.posix_spawn(program, argv, child_environment({}), file_actions=to_log), 0)
    if status:
        sys.exit(f"{case.name} failed:\n{log.read_text()[-2000:]}")
    return usage.ru_maxrss * 1024


def arguments(case: Case, folder: Path) -> dict[str, Any]:
    """What LLaMA-Factory is told."""
    model = {"model_name_or_path": str(resolve(BASE)), "template": "smollm2", "finetuning_type": "lora"}
    tuned = {"adapter_name_or_path": str(folder / CASES[0].name)}
    data = {
        "dataset_dir": str(folder),
        "cutoff_len": TOKENS,
        "output_dir": str(folder / case.name),
        "report_to": "none",
    }
    if case.stage == "merge":
        return {**model, **tuned, "export_dir": str(folder / "merged"), "export_size": 5, "export_device": "cpu"}
    if case.stage == "predict":
        asked = {"do_predict": True, "predict_with_generate": True, "do_sample": False, "max_new_tokens": NEW_TOKENS}
        rows = {"eval_dataset": "rows", "max_samples": case.batch, "per_device_eval_batch_size": case.batch}
        return {**model, **tuned, **data, **asked, **rows, "stage": "sft"}
    rows = {"dataset": "rows", "max_steps": 2, "per_device_train_batch_size": case.batch}
    return {**model, **data, **rows, "stage": "sft", "do_train": True, "lora_target": "all", **case.training}


def forecast(case: Case, model: Model) -> Forecast:
    """What the tool would have said."""
    if case.stage == "merge":
        return merge(model)
    batches = {"per_device_train_batch_size": case.batch, "per_device_eval_batch_size": case.batch}
    setting = MemoryInput({**DEFAULTS, **batches, **case.training}, TOKENS, NEW_TOKENS)
    return (train if case.stage == "train" else predict)(model, setting)


def measured_table(file: Path) -> Iterator[str]:
    """Forecast and measurement of each case, in MiB."""
    model = read_model(resolve(BASE))
    assert model is not None
    known = json.loads(file.read_text())
    yield from ("| stage | batch | | forecast | measured | |", "|---|---|---|---|---|---|")
    for case in CASES:
        if case.name in known:
            said, was = sum(forecast(case, model).host.values()), known[case.name]
            settings = ", ".join(f"`{key}: {value}`" for key, value in case.training.items())
            batch = "" if case.stage == "merge" else case.batch
            yield f"| {case.stage} | {batch} | {settings} | {said >> 20:,} | {was >> 20:,} | {said / was - 1:+.0%} |"


# ---- published by others


def decoder(hidden: int, inner: int, layers: int, vocabulary: int, fused: bool = False) -> Model:
    """A Llama or, with fused projections, a first-generation Qwen in bfloat16, without grouped-query attention."""
    attention = [("q_proj", hidden, hidden), ("k_proj", hidden, hidden), ("v_proj", hidden, hidden)]
    block = [
        *([("c_attn", 3 * hidden, hidden)] if fused else attention),
        ("o_proj", hidden, hidden),
        ("gate_proj", inner, hidden),
        ("up_proj", inner, hidden),
        ("down_proj", hidden, inner),
    ]
    count = layers * sum(outputs * inputs for _, outputs, inputs in block) + 2 * vocabulary * hidden
    return Model(2 * count, count, tuple(block * layers), hidden, inner, layers, hidden // 128, 2 * hidden, vocabulary)


LLAMA_7B = decoder(4096, 11008, 32, 32000)
QWEN_7B, QWEN_2B = decoder(4096, 11008, 32, 151936, True), decoder(2048, 5504, 24, 151936, True)
FACTORY = "LLaMA-Factory, 7B"
QWEN = "Qwen, A100"
BF16, RANK = {"bf16": True}, {"bf16": True, "lora_rank": 64}
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
PUBLISHED: list[tuple[str, str, Model, int, dict[str, Any], float]] = [
    (FACTORY, "full, bf16", LLAMA_7B, 512, {"finetuning_type": "full", **BF16}, 120.0),
    (FACTORY, "full, pure_bf16", LLAMA_7B, 512, {"finetuning_type": "full", "pure_bf16": True}, 60.0),
    (FACTORY, "LoRA", LLAMA_7B, 512, BF16, 16.0),
    (FACTORY, "QLoRA 8 bit", LLAMA_7B, 512, {"quantization_bit": 8, **BF16}, 10.0),
    (FACTORY, "QLoRA 4 bit", LLAMA_7B, 512, {"quantization_bit": 4, **BF16}, 6.0),
    *[(QWEN, f"7B LoRA, {length} tokens", QWEN_7B, length, RANK, said)
      for length, said in zip(LENGTHS, (20.1, 20.4, 21.5, 23.8, 29.7, 36.6), strict=True)],
    *[(QWEN, f"7B QLoRA 4 bit, {length} tokens", QWEN_7B, length, {"quantization_bit": 4, **RANK}, said)
      for length, said in zip(LENGTHS, (11.5, 11.5, 12.3, 13.9, 16.9, 23.5), strict=True)],
    *[(QWEN, f"1.8B LoRA, {length} tokens", QWEN_2B, length, RANK, said)
      for length, said in zip(LENGTHS, (6.7, 7.4, 8.4, 11.0, 16.2, 21.8), strict=True)],
]  # fmt: skip
"""(source, what, model, tokens, arguments, published GB)."""


def published_table() -> Iterator[str]:
    """Forecast and published figure of each case, in GB."""
    yield from ("| source | | forecast | published | |", "|---|---|---|---|---|")
    for source, what, model, tokens, chosen, published in PUBLISHED:
        setting = MemoryInput({**DEFAULTS, "per_device_train_batch_size": 1, **chosen}, tokens, devices=1)
        said = sum(train(model, setting).gpu.values()) / 1e9
        yield f"| {source} | {what} | {said:.1f} | {published:g} | {said / published - 1:+.0%} |"


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        measure(Path(sys.argv[2]))
    else:
        print("\n".join([*measured_table(Path(sys.argv[1])), "", *published_table()]))
