"""One miniature through the whole chain, as a user would send it, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ORCHESTRATOR
from benchmarks.zoo.rows import write_rows
from orchestrator.lib import process
from orchestrator.lib.files import read_json, write_text

SPEC = """\
name: zoo
model: {{base: "{base}"}}
data: {{train: data/train.json, eval: data/eval.json}}
train:
  learning_rate: 5.0e-3
  loraplus_lr_ratio: 16
  num_train_epochs: 4
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 1
  cutoff_len: 512
evaluate: {{max_new_tokens: 8, baseline: false, better_than: []}}
export: {{gguf: [f16], adapter: {adapter}, gate: {{min_agreement: 0.9, max_accuracy_drop: 0.1}}}}
"""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command of ours, ended."""

    code: int
    seconds: float
    lines: Sequence[str]
    """What it printed, results and diagnostics."""

    @property
    def complaint(self) -> str:
        """Its error in one line; empty when there was none."""
        return next((line.partition("error: ")[2] for line in self.lines if "error: " in line), "") if self.code else ""


def passed_through(base: Path, work: Path, adapter: bool = True) -> Json:
    """A row of the table: what `check` said of a base model, and what the chain made of it."""
    write_text(work / "spec.yaml", SPEC.format(base=base, adapter=str(adapter).lower()))
    write_rows(work / "data")
    checked = call(["check", "spec.yaml"], work)
    row: Json = {"tokenizer": tokenizer_class(base), "check": round(checked.seconds, 1)}
    if checked.code:
        row |= {"cure": "", "outcome": "refused by check", "because": checked.complaint}
    else:
        row |= {"cure": said(checked)} | outcome(call(["run", "spec.yaml", "--quiet"], work)) | measured(work / "runs")
    return row | {key: row[key].replace(str(base), base.name) for key in ("cure", "because")}


def call(arguments: Sequence[str], work: Path) -> Ended:
    """Run the tool as a user does, to its end."""
    log, began = work / f"{arguments[0]}.log", time.monotonic()
    log.unlink(missing_ok=True)
    code = process.wait(process.start(process.Command([ORCHESTRATOR, *arguments], work, log)))
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    return Ended(code, time.monotonic() - began, lines)


def outcome(ended: Ended) -> Json:
    """How the chain ended, in the words of its exit code."""
    words = {0: "passes", 4: "a stage fails", 5: "quality gate failed"}
    return {
        "outcome": words.get(ended.code, "refused"),
        "because": ended.complaint,
        "seconds": round(ended.seconds),
    }


def said(checked: Ended) -> str:
    """What `check` said of the model: neither that all is good nor the forecast of memory."""
    return "; ".join(line for line in checked.lines if line.startswith(("model", "tokenizer", "template")))


def measured(runs: Path) -> Json:
    """Prompts and answers of the newest run, as far as it came."""
    folder = max((file.parent for file in runs.glob("*/run.json")), default=None)
    if folder is None:
        return {}
    record = read_json(folder / "run.json")
    found: Json = {"template": template_of(folder)}
    for artifact in ("gguf-f16", "gguf-adapter"):
        parity = folder / f"evaluation/{artifact}.parity.json"
        if parity.is_file():
            found[artifact] = read_json(parity) | {"agreement": agreement(record, artifact)}
    return found


def template_of(run: Path) -> str | None:
    """The template that a run was trained with."""
    serving = run / "data/serving.json"
    return str(read_json(serving)["template"]) if serving.is_file() else None


def agreement(record: Mapping[str, Any], artifact: str) -> float | None:
    """Percentage of rows answered as the tuned model does."""
    figures = record.get("metrics", {}).get(artifact, {})
    value = figures.get("agreement_with_tuned", {}).get("value")
    return None if value is None else float(value)


def tokenizer_class(base: Path) -> str:
    """As the model's own tokenizer_config.json says it."""
    return str(read_json(base / "tokenizer_config.json").get("tokenizer_class"))
