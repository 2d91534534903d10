"""What the page of a sweep shows: sweep.json, and the loss curves of its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.evaluation.metric import is_lower_better
from orchestrator.lib import layout
from orchestrator.lib.secrecy import without_folders
from orchestrator.lib.words import agreeing, counted, plural
from orchestrator.report.charts import Axis, Chart, Series, numbered, parallel, plot, short
from orchestrator.runs.training_log import curve, read_log

Json = dict[str, Any]

CURVE_POINTS = 60
"""Points of one loss curve: five hundred curves must stay a page that opens at once."""

TOLD_APART = 24
"""So many curves have a colour and a dash of their own: eight colours, three kinds of line."""
DRAWN = ("off", "s0", "s3", "s2", "s1")
"""The order of drawing: the best lies on top."""
RUNNING: Json = {"status": "running", "value": None, "seconds": None, "reason": None}
"""What is not known of a trial that has not ended."""


def facts(folder: Path, sweep: Json) -> Json:
    """The values of report_sweep.html.j2."""
    sweep = {"status": "running", "metric": "metric", "parameters": {}, **sweep}  # a new one knows little of itself
    trials = [described(trial, sweep["ranking"], folder.parent) for trial in sweep["trials"]]
    trials += [described({**RUNNING, **trial}, sweep["ranking"], folder.parent) for trial in sweep.get("running", [])]
    drawn = sorted(trials, key=lambda trial: DRAWN.index(trial["look"]))
    measured = [trial for trial in drawn if trial["value"]]
    return {
        "sweep": sweep,
        "live": sweep["status"] == "running",
        "outcome": outcome(sweep),
        "trials": trials,
        "words": words,
        "parameters": {name: scatter(name, sweep, measured) for name in sweep["parameters"]},
        "parallel": coordinates(sweep, measured),
        "curves": curves(folder.parent, told_apart(trials, sweep["metric"])),
        "told_apart": TOLD_APART,
    }


def described(trial: Json, ranking: Sequence[Json], runs_dir: Path) -> Json:
    """A trial with its name and look on a chart, its settings in words, and whether it has a page to link to."""
    settings = without_folders(words(trial["parameters"]))
    value = f": {trial['value']['value']:.4g}" if trial["value"] else f", {trial['status']}"
    return {
        **trial,
        "title": f"trial {trial['number']}{value}, {settings}",
        "look": look(trial, ranking),
        "settings": settings,
        "reason": without_folders(trial["reason"] or ""),
        "page": bool(trial["run"]) and (runs_dir / trial["run"] / layout.REPORT).is_file(),
    }


def outcome(sweep: Json) -> str:
    """A sweep in a sentence."""
    trials, ranking = sweep["trials"], sweep["ranking"]
    total = sweep.get("total", len(trials))
    ended = f"{len(trials)} of {total} {plural(total, 'trial')} ended"
    for status in ("pruned", "failed", "diverged", "unusable"):
        if count := sum(trial["status"] == status for trial in trials):
            ended += f", {count} {status}"
    if not ranking:
        return f"{ended}; none was ranked yet."
    best = ranking[0]
    tied = sum(entry["tied"] is True for entry in ranking) - 1
    told = f"; {counted(tied, 'other')} {agreeing(tied, 'show')} no significant difference from it" if tied else ""
    if not tied and len(ranking) > 1 and all(entry["tied"] is False for entry in ranking[1:]):
        told = "; every other one differs significantly from it"
    reached = f"{words(best['parameters'])} has {sweep['metric']} {best['value']['value']:.4g}"
    if not best.get("learnt", True):
        return f"{ended}. None of {len(ranking)} settings is shown to have learnt anything; the first, {reached}."
    return f"{ended}. The best of {len(ranking)} settings, {reached}{told}."


def words(parameters: Json) -> str:
    """Parameters in a line."""
    shown = {name: short(value) if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return ", ".join(f"{name} = {text}" for name, text in shown.items())


def look(trial: Json, ranking: Sequence[Json]) -> str:
    """The colour of a trial: the best setting, one that cannot be told from it, another, or one without a value."""
    if trial["status"] == "running":
        return "s3"
    if not trial["value"] or trial["status"] == "unusable":
        return "off"
    place = next((entry for entry in ranking if trial["number"] in entry["trials"]), None)
    if place is None:
        return "s0"
    return "s1" if place["rank"] == 1 else "s2" if place["tied"] else "s0"


def is_log(space: Any) -> bool | None:
    """What a range says of its scale; a list of values says nothing."""
    return bool(space.get("log")) if isinstance(space, dict) else None


def scatter(name: str, sweep: Json, measured: Sequence[Json]) -> Chart | None:
    """The metric against one parameter; words stand at 0, 1, 2, …"""
    values, known = numbered([trial["parameters"].get(name) for trial in measured])
    label = f"{name}: {', '.join(f'{place} = {word}' for place, word in enumerate(known))}" if known else name
    dots = [
        Series(trial["title"], [(value, trial["value"]["value"])], trial["look"], dots=True)
        for trial, value in zip(measured, values, strict=True)
    ]
    return plot(f"{sweep['metric']} against {name}", label, sweep["metric"], dots, is_log(sweep["parameters"][name]))


def coordinates(sweep: Json, measured: Sequence[Json]) -> Chart | None:
    """Every measured trial as a line through its parameters and its metric."""
    axes = [
        Axis(name, [trial["parameters"].get(name) for trial in measured], is_log(space))
        for name, space in sweep["parameters"].items()
    ]
    axes.append(Axis(sweep["metric"], [trial["value"]["value"] for trial in measured], False))
    return parallel(axes, [trial["title"] for trial in measured], [trial["look"] for trial in measured])


def told_apart(trials: Sequence[Json], metric: str) -> list[Json]:
    """The trials in the order of drawing, the best last; each of the best with a look of its own, the others faint."""
    sign = 1 if is_lower_better(metric) else -1
    best = sorted(trials, key=lambda trial: sign * trial["value"]["value"] if trial["value"] else math.inf)
    looks = [f"s{place % 8} d{place // 8}" if place < TOLD_APART else "off" for place in range(len(best))]
    return [{**trial, "look": look} for trial, look in zip(best, looks, strict=True)][::-1]


def curves(runs_dir: Path, drawn: Sequence[Json]) -> Chart | None:
    """All loss curves over each other, thinned."""
    series = [
        Series(trial["title"], thinned(curve(read_log(runs_dir / trial["run"]), "loss")), trial["look"])
        for trial in drawn
        if trial["run"]
    ]
    return plot("Loss of every trial", "step", "loss", series)


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most CURVE_POINTS of the points, evenly, the last one among them."""
    stride = -(-len(points) // CURVE_POINTS) or 1
    return points[::-1][::stride][::-1]
