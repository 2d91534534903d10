"""What the page of a run shows, read from the run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator import layout
from orchestrator.execute import tail
from orchestrator.files import read_json
from orchestrator.progress import read_log
from orchestrator.report.charts import Series, plot
from orchestrator.report.words import advice, comparison, headline, outcome
from orchestrator.secrecy import redacted
from orchestrator.workflow import summaries

Json = dict[str, Any]

ROWS_SHOWN = 300
"""Mistakes of one artifact on the page; the files hold all of them."""
TEXT_SHOWN = 700
"""Characters of a prompt or an answer."""
FIGURES = {
    "accuracy": ("macro_f1", "invalid_label_rate", "rouge1", "agreement_with_tuned"),
    "preference_accuracy": ("reward_accuracy", "reward_margin", "rougeL", "agreement_with_tuned"),
    "perplexity": (),
    "rougeL": ("rouge1", "rouge2", "bleu", "agreement_with_tuned"),
}
"""What stands beside the headline."""


def facts(folder: Path, record: Json) -> Json:
    """The values of report.html.j2."""
    summary, log, findings = summaries(folder), read_log(folder), read_findings(folder)
    sentence, tone = outcome(record, summary, log)
    return {
        "run": record,
        "live": record["status"] == "running",
        "outcome": sentence,
        "tone": tone,
        "advice": advice(record, summary, log, findings),
        "artifacts": artifacts(summary),
        "sentences": [entry["sentence"] for entry in summary.get("comparisons", [])],
        "failures": [failure["sentence"] for failure in summary.get("failures", [])],
        "recommendation": (summary.get("recommendation") or {}).get("sentence"),
        "curves": curves(log),
        "classes": [entry for name in summary.get("detail", {}) if (entry := confusion(name, summary["detail"][name]))],
        "mistakes": list(mistakes(folder)),
        "findings": findings,
        "stages": list(stages(folder, record)),
        "lineage": list(flat(record.get("lineage", {}))),
        "environment": list(flat(record.get("environment", {}))),
        "spec": _text(folder / layout.SPEC),
    }


def artifacts(summary: Json) -> list[Json]:
    """A line for each artifact; `headline` is the figure with an interval."""
    lines = []
    failed = {failure["artifact"] for failure in summary.get("failures", [])}
    for name, figures in summary.get("metrics", {}).items():
        against = comparison(summary, name)
        verdict = f"{against['verdict']} than {against['b']}" if against else ""
        if against and against["verdict"] == "cannot tell":
            verdict = f"cannot be told from {against['b']}"
        lines.append(
            {
                "name": name,
                "n": figures.get("n"),
                "metric": headline(figures),
                "headline": figures.get(headline(figures)),
                "figures": {key: figures[key] for key in FIGURES[headline(figures)] if key in figures},
                "size": summary.get("sizes", {}).get(name),
                "verdict": verdict,
                "fails": name in failed,
                "chosen": name == (summary.get("recommendation") or {}).get("artifact"),
            }
        )
    return lines


def curves(log: list[Json]) -> list[Json]:
    """The charts of a training: loss on training and held-out rows, and the learning rate."""
    loss = Series("training", points(log, "loss"), "s0")
    held_out = Series("held-out", points(log, "eval_loss"), "s1")
    rate = Series("learning rate", points(log, "lr"), "s2")
    charts = [("Loss", plot("Loss", "step", "loss", [loss, held_out]))]
    charts.append(("Learning rate", plot("Learning rate", "step", "learning rate", [rate])))
    return [{"title": title, "svg": svg} for title, svg in charts if svg]


def points(log: list[Json], key: str) -> list[tuple[float, float]]:
    """Step and value of a trainer log's entries that have the value."""
    return [(entry["current_steps"], entry[key]) for entry in log if isinstance(entry.get(key), (int, float))]


def confusion(artifact: str, detail: Json) -> Json | None:
    """The confusion matrix, each cell with its share of the row in tenths, and the figures of each class."""
    if "confusion_matrix" not in detail:
        return None
    rows = []
    for label, counts in zip(detail["labels"], detail["confusion_matrix"], strict=True):
        total = sum(counts) or 1
        cells = [{"count": count, "heat": min(9, 10 * count // total)} for count in counts]
        rows.append({"label": label, "cells": cells, "figures": detail["per_class"][label]})
    return {"artifact": artifact, "labels": detail["labels"], "rows": rows}


def mistakes(folder: Path) -> Iterator[Json]:
    """The tuned model's mistakes, then where each GGUF answers otherwise, with the whole count of each kind."""
    files = [folder / "evaluation" / "tuned.errors.jsonl", *sorted(folder.glob("evaluation/*.disagreements.jsonl"))]
    for file in files:
        artifact, kind = file.name.split(".")[0], file.name.split(".")[-2]
        lines = _text(file).splitlines()
        shown = [_mistake(json.loads(line), artifact) for line in lines[:ROWS_SHOWN]]
        if lines:
            title = f"mistakes of {artifact}" if kind == "errors" else f"{artifact} answers otherwise"
            yield {"title": title, "count": len(lines), "rows": shown, "file": f"evaluation/{file.name}"}


def _mistake(row: Json, artifact: str) -> Json:
    """A row of an errors file {prediction} or of a disagreements file {artifact: answer, tuned: answer}."""
    answer = row.get("prediction", row.get(artifact, ""))
    texts = {
        "id": row["id"],
        "prompt": row["prompt"],
        "label": row["label"],
        "answer": answer,
        "tuned": row.get("tuned"),
    }
    return {key: shortened(str(text)) if text is not None else None for key, text in texts.items()}


def shortened(text: str) -> str:
    """A text that does not fill the page."""
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}… ({len(text)} characters)"


def read_findings(folder: Path) -> list[Json]:
    """What the data checks found; empty where they did not run."""
    file = folder / layout.FINDINGS
    found = read_json(file) if file.is_file() else []
    return list(found["findings"] if isinstance(found, dict) else found)


def stages(folder: Path, record: Json) -> Iterator[Json]:
    """Each stage with its exact command and configuration; of a failed one also what it said last."""
    import shlex

    for name, entry in record["stages"].items():
        files = [path for path in (f"configs/{name}.yaml", f"configs/{name}.json") if (folder / path).is_file()]
        configs = [{"path": path, "text": _text(folder / path)} for path in files]
        said = redacted("\n".join(tail(folder / layout.log(name)))) if entry["status"] == "failed" else ""
        yield {**entry, "name": name, "command": shlex.join(entry.get("argv", [])), "configs": configs, "said": said}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as `a.b` → text; what is unknown is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name} › {key}" if name else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from flat(inner, f"{name} {number}")
    elif value is not None:
        yield name, str(value)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
