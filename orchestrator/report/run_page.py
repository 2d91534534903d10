"""What the page of a run shows, read from the run's folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.evaluation.learnt import gain, gain_sentence
from orchestrator.evaluation.metric import METRICS, added, primary
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.lib.secrecy import redacted, without_folders
from orchestrator.pipeline.failure import tail
from orchestrator.report.answers import ROWS_SHOWN as ANSWERS_SHOWN
from orchestrator.report.answers import all_kinds, answers_by_row
from orchestrator.report.charts import Chart, Series, plot
from orchestrator.report.overview import head, is_plain, text_of, timeline
from orchestrator.report.summary import advice, comparison, outcome, told
from orchestrator.runs.results import summaries
from orchestrator.runs.training_log import curve, newest, read_log

Json = dict[str, Any]

NOTHING_MEASURED: Json = {"metrics": {}, "detail": {}, "comparisons": [], "failures": [], "sizes": {}, "notes": []}
ROWS_SHOWN = 300
"""Mistakes of one artifact on the page; the files hold all of them."""
LEAST_CERTAIN = 50
"""Rows on the page that a classifier is least certain of."""


def facts(folder: Path, record: Json) -> Json:
    """The values of report.html.j2."""
    log, findings = read_log(folder), read_findings(folder)
    summary = {**NOTHING_MEASURED, **summaries(folder)}
    sentence, tone = outcome(record, summary, log)
    return {
        "run": record,
        "live": record["status"] == "running",
        "outcome": sentence,
        "tone": tone,
        "advice": advice(record, summary, log, findings, newest(folder)),
        "findings": findings,
        "curves": {title: chart for title, chart in curves(log, summary).items() if chart},
        **_measured(summary),
        **_answered(folder, summary),
        **_recorded(folder, record),
    }


def _measured(summary: Json) -> Json:
    """The table of artifacts, and what it takes to read it."""
    headline, gained = primary(next(reversed(summary["metrics"].values()), {})), gain(summary)
    return {
        "summary": summary,
        "comparison": comparison,
        "gained": gained,
        "gained_sentence": _capital(gain_sentence(gained)) if gained else "",
        "told": told,
        "headline": headline,
        "digits": {name: metric.digits for name, metric in METRICS.items()},
        "beside": [*_beside(headline, summary["metrics"].values()), *summary.get("own", ())],
        "classes": {name: detail for name, detail in summary["detail"].items() if "confusion_matrix" in detail},
    }


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _beside(headline: str, measured: Iterable[Json]) -> list[str]:
    """The metrics beside the primary one that some artifact has."""
    known = {name for metrics in measured for name in metrics}
    return [name for name in (*METRICS[headline].beside, *added(known)) if name in known]


def _answered(folder: Path, summary: Json) -> Json:
    """The answers side by side, and those that are wrong or doubtful."""
    answers = answers_by_row(folder, summary)
    shown = answers[:ANSWERS_SHOWN]
    return {
        "answers": shown,
        "answered": len(answers),
        "answer_kinds": all_kinds(shown),
        "mistakes": list(mistakes(folder)),
    }


def _recorded(folder: Path, record: Json) -> Json:
    """What the run was made with, and what it left."""
    return {
        "head": head(folder, record),
        "modelfiles": modelfiles(folder),
        "timeline": timeline(record),
        "stages": list(stages(folder, record)),
        "lineage": list(flat(record.get("lineage", {}))),
        "environment": list(flat(record.get("environment", {}))),
        "spec": without_folders(text_of(folder / layout.SPEC)),
    }


def curves(log: list[Json], summary: Json | None = None) -> dict[str, Chart | None]:
    """The charts of a training: loss on training and held-out rows, the learning rate, and how its checkpoints
    answered validation rows where one was chosen."""
    losses = [Series("training", curve(log, "loss")), Series("held-out", curve(log, "eval_loss"), "s1")]
    rate = Series("learning rate", curve(log, "lr"), "s2")
    return {
        "Loss": plot("Loss", "step", "loss", losses),
        "Learning rate": plot("Learning rate", "step", "learning rate", [rate]),
        **_checkpoints((summary or {}).get("keep")),
    }


def _checkpoints(keep: Json | None) -> dict[str, Chart | None]:
    if not keep:
        return {}
    name = METRICS[keep["metric"]].title
    points = [(entry["epoch"], entry["value"]) for entry in keep["curve"]]
    kept = [point for entry, point in zip(keep["curve"], points, strict=True) if entry["checkpoint"] == keep["kept"]]
    series = [Series(f"{keep['rows']} validation rows", points), Series("kept", kept, "s1", True)]
    return {"Checkpoints": plot("Checkpoints", "epoch", name, series)}


def mistakes(folder: Path) -> Iterator[Json]:
    """The tuned model's mistakes, then where each GGUF answers differently, with the whole count of each kind.

    A row holds the answer as `prediction`, or under the artifact's name beside that of `tuned`.
    """
    files = [folder / "evaluation" / "tuned.errors.jsonl", *sorted(folder.glob("evaluation/*.disagreements.jsonl"))]
    for file in files:
        artifact, kind = file.name.split(".")[0], file.name.split(".")[-2]
        if rows := read_json_lines(file) if is_plain(file) else []:
            yield {
                "artifact": artifact,
                "title": f"mistakes of {artifact}" if kind == "errors" else f"{artifact} answers differently",
                "count": len(rows),
                "rows": rows[:ROWS_SHOWN],
                "file": f"evaluation/{file.name}",
            }
    yield from _doubtful(folder)


def _doubtful(folder: Path) -> Iterator[Json]:
    """The rows that a GGUF is least certain of, right or wrong: the first by its name, for one tells of all."""
    files = sorted(folder.glob(layout.confidence("gguf-*")))
    for file in files[:1]:
        artifact, rows = file.name.split(".")[0], read_json_lines(file)
        yield {
            "artifact": artifact,
            "title": f"{artifact} is least certain",
            "count": len(rows),
            "rows": [
                {**row, "prediction": f"{row['prediction']} ({100 * row['confidence']:.0f} %)"}
                for row in rows[:LEAST_CERTAIN]
            ],
            "file": f"evaluation/{file.name}",
        }


def modelfiles(folder: Path) -> dict[str, str]:
    """Name → text of what Ollama is given, as it is: it names no folder. The recommended file's comes first."""
    files = [folder / layout.MODELFILE, *sorted(folder.glob(f"{layout.MODELFILE}.*"))]
    return {file.name: text for file in files if (text := text_of(file))}


def read_findings(folder: Path) -> list[Json]:
    """What the data checks found; empty where they did not run."""
    file = folder / layout.FINDINGS
    return list(read_json(file)["findings"]) if file.is_file() else []


def stages(folder: Path, record: Json) -> Iterator[Json]:
    """Each stage with its exact command and configuration; of a failed one also what it said last."""
    for name, entry in record["stages"].items():
        files = [path for path in (layout.config(name), layout.stage_config(name)) if (folder / path).is_file()]
        configs = [{"path": path, "text": without_folders(text_of(folder / path))} for path in files]
        log = folder / layout.log(name)
        said = redacted("\n".join(tail(log))) if entry["status"] == "failed" and is_plain(log) else ""
        command = without_folders(shlex.join(entry.get("argv", [])))
        yield {**entry, "name": name, "command": command, "configs": configs, "said": without_folders(said)}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as `a › b` → text; what is unknown is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name} › {key}" if name else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from flat(inner, f"{name} {number}")
    elif value is not None:
        yield name, without_folders(str(value))
