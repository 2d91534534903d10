"""A run in one sentence, and what to try next. Pure: record, summary and curves in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.filesize import decimal

from orchestrator.evaluation.learnt import BETTER_THAN, UNTRAINED, gain, next_steps, seen
from orchestrator.evaluation.metric import METRICS, primary
from orchestrator.lib.words import counted
from orchestrator.runs.training_log import curve, resumed_step, seconds_left

Json = Mapping[str, Any]
WIDE = 12.0
"""Points of accuracy; an interval wider than this hides most improvements."""
OFTEN = 5.0
"""Percent of answers without a known label that call for action."""


def outcome(record: Json, summary: Json, log: Sequence[Json] = ()) -> tuple[str, str]:
    """A run in a sentence, and its tone: good, bad or plain."""
    if record["status"] in ("running", "interrupted", "failed", "pruned"):
        return _unfinished(record, log)
    if "tuned" not in summary.get("metrics", {}):
        return "Finished; nothing was measured.", "plain"
    failures = summary.get("failures", [])
    return f"{_measured(summary)}{_shipping(summary)}.", "bad" if failures else _tone(summary)


def advice(
    record: Json, summary: Json, log: Sequence[Json], findings: Sequence[Json], checkpoint: str = ""
) -> list[str]:
    """What to try next, the most promising first; `checkpoint` is the newest one that is kept."""
    if record["status"] in ("running", "pruned"):
        return []
    if record["status"] != "completed":
        return [f"Read logs/{stage}.log." for stage in _stages(record, "failed")] + [
            f"Run the same command again: finished stages are kept{_from(checkpoint)}."
        ]
    return [
        *about_files(summary),
        *_about_data(findings),
        *about_training(summary, log),
        *_about_answers(summary),
        *_about_gate(summary),
        *_about_general(summary),
    ]


def _from(checkpoint: str) -> str:
    return f", and training goes on from {checkpoint}" if checkpoint else ""


def _unfinished(record: Json, log: Sequence[Json]) -> tuple[str, str]:
    status = record["status"]
    stage = next(iter(_stages(record, status)), None)
    if status == "running":
        train = record["stages"].get("train", {})
        progress = _progress(log[-1], resumed_step(train.get("argv", ()))) if stage == "train" and log else ""
        return (f"Running: {stage or 'between two stages'}{progress}.", "plain")
    if status == "pruned":
        return "Given up early: other trials of its sweep did better.", "plain"
    how = "Failed" if status == "failed" else "Interrupted"
    return (f"{how} in {stage}; the log is logs/{stage}.log." if stage else f"{how}."), "bad"


def _progress(last: Json, start: int) -> str:
    left = seconds_left(last, start)
    shown = "" if left is None else f", {timedelta(seconds=round(left))} left"
    return f", step {last['current_steps']} of {last['total_steps']}{shown}"


def _stages(record: Json, status: str) -> list[str]:
    return [name for name, entry in record["stages"].items() if entry.get("status") == status]


def _measured(summary: Json) -> str:
    figures = summary["metrics"]["tuned"]
    metric = primary(figures)
    value = figures[metric]
    interval = f"({value['low']:.1f}–{value['high']:.1f})"
    reached = METRICS[metric].sentence.format(f"{value['value']:.1f}", interval)
    right = " right" if metric == "accuracy" else ""
    return f"{reached} {counted(figures['n'], 'held-out row')}{right}{_against_best(summary)}"


def _against_best(summary: Json) -> str:
    against = comparison(summary, "tuned")
    if against is None:
        return ""
    if best := gain(summary):
        than = f"the best baseline, {UNTRAINED[best['b']]} ({best['value_b']:.1f})"
        if best["verdict"] == "better":
            return f", {best['difference']['value']:+.1f} points over {than}"
        how = "no significant difference from" if best["verdict"] == "cannot tell" else f"{best['verdict']} than"
        return f", {how} {than}"
    if against["verdict"] == "cannot tell":
        return f", no significant difference from the base model's {against['value_b']:.1f}"
    return f", {against['verdict']} than the base model's {against['value_b']:.1f}"


def _shipping(summary: Json) -> str:
    ggufs = [name for name in summary["metrics"] if name.startswith("gguf-")]
    if not ggufs:
        return ""
    failed = {failure["artifact"] for failure in summary.get("failures", [])} & set(ggufs)
    passing = f"; {len(ggufs) - len(failed)} of {len(ggufs)} GGUFs pass the quality gate"
    chosen = summary.get("recommendation")
    return f"{passing}, ship {chosen['artifact']} ({decimal(chosen['bytes'])})" if chosen else passing


def _tone(summary: Json) -> str:
    against = comparison(summary, "tuned")
    return {"better": "good", "worse": "bad"}.get(against["verdict"] if against else "", "plain")


def comparison(summary: Json, artifact: str) -> Json | None:
    """What an artifact was compared with, and how."""
    return next((entry for entry in summary.get("comparisons", []) if entry["a"] == artifact), None)


def told(verdict: str) -> str:
    """A verdict with the words that lead to what it is about: `better than`, `as good as`, …"""
    return {"cannot tell": "no significant difference from", "as good": "as good as"}.get(verdict, f"{verdict} than")


def about_files(summary: Json) -> Iterator[str]:
    """Which files of figures are not as they were recorded, and what makes them again."""
    for path in summary.get("not_as_recorded", ()):
        command = "export" if "judge" in path else "evaluate"
        yield f"{path} is gone or changed, and nothing is taken from it: `orchestrator {command}` makes it again."


def _about_data(findings: Sequence[Json]) -> Iterator[str]:
    errors = [finding["message"] for finding in findings if finding.get("severity") == "error"]
    if errors:
        yield f"Fix the data first; figures on such data mislead: {errors[0]}"


def about_training(summary: Json, log: Sequence[Json]) -> Iterator[str]:
    """What the losses and the answers suggest, the most promising first."""
    losses, held_out = ([value for _, value in curve(log, key)] for key in ("loss", "eval_loss"))
    return next_steps(seen(summary, losses, held_out))


def _about_answers(summary: Json) -> Iterator[str]:
    figures = summary.get("metrics", {}).get("tuned", {})
    if (invalid := figures.get("invalid_label_rate")) and invalid["value"] > OFTEN:
        yield f"{invalid['value']:.0f} % of the answers name no label: train longer, or check evaluate.max_new_tokens."
    if (accuracy := figures.get("accuracy")) and accuracy["high"] - accuracy["low"] > WIDE:
        width = (accuracy["high"] - accuracy["low"]) / 2
        yield f"{figures['n']} held-out rows tell the accuracy to ±{width:.0f} points: more of them show smaller gains."
    classes = summary.get("detail", {}).get("tuned", {}).get("per_class", {})
    weak = sorted(
        (entry["recall"], name) for name, entry in classes.items() if entry["support"] and entry["recall"] < 50
    )
    if weak:
        names = ", ".join(f"{name} ({recall:.0f} %)" for recall, name in weak[:3])
        yield f"Fewer than half of these are recognised: {names}. Add rows of them, or see what they are taken for."


def _about_general(summary: Json) -> Iterator[str]:
    if summary.get("general", {}).get("verdict") == "damaged":
        yield (
            "General ability is damaged, which matters if the model is asked anything but this job: a lower learning "
            "rate or fewer epochs keep more of it, and so do general conversations among the rows of data.train."
        )


def _about_gate(summary: Json) -> Iterator[str]:
    failures = summary.get("failures", [])
    if any((failure["artifact"], failure["what"]) == ("tuned", "answers") for failure in failures):
        yield "The tuned model itself is not to be used: try a lower learning rate, more epochs, or other rows."
        return
    unproven = list(dict.fromkeys(failure["artifact"] for failure in failures if failure["what"] == "uncompared"))
    if unproven:
        yield (
            f"Nothing is proven of some rows of {', '.join(unproven)}: hold out rows without tools, "
            "or allow it with export.gate.max_uncompared."
        )
    apart = ("uncompared", BETTER_THAN)
    refused = list(dict.fromkeys(failure["artifact"] for failure in failures if failure["what"] not in apart))
    if refused:
        names = ", ".join(refused)
        yield f"The quality gate failed for {names}: leave it out of export.gguf, or choose a larger quantisation."
    if chosen := summary.get("recommendation"):
        yield f"Ship {chosen['artifact']}: see the Modelfile in export/."
