"""What the page of a sweep shows: sweep.json, and the loss curves of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from orchestrator import layout
from orchestrator.report.charts import Axis, Series, parallel, plot, short
from orchestrator.side_by_side import losses

Json = dict[str, Any]

CURVE_POINTS = 60
"""Points of one loss curve: five hundred curves must stay a page that opens at once."""

DRAWN = ("off", "s0", "s3", "s2", "s1")
"""The order of drawing: the best lies on top."""
RUNNING: Json = {"status": "running", "value": None, "seconds": None, "reason": None}
"""What is not known of a trial that has not ended."""


def facts(folder: Path, sweep: Json) -> Json:
    """The values of report_sweep.html.j2."""
    sweep = {"status": "running", "metric": "metric", "parameters": {}, **sweep}  # a new one knows little of itself
    running = [{**RUNNING, **trial} for trial in sweep.get("running", [])]
    trials, ranking = [*sweep["trials"], *running], sweep["ranking"]
    looks = {trial["number"]: look(trial, ranking) for trial in trials}
    measured = [trial for trial in trials if trial.get("value")]
    measured.sort(key=lambda trial: DRAWN.index(looks[trial["number"]]))
    return {
        "sweep": sweep,
        "live": sweep["status"] == "running",
        "outcome": outcome(sweep),
        "ranking": ranking,
        "trials": [
            {**trial, "settings": words(trial["parameters"]), "page": has_page(folder.parent, trial)}
            for trial in trials
        ],
        "words": words,
        "parameters": [scatter(name, space, sweep, measured, looks) for name, space in sweep["parameters"].items()],
        "parallel": coordinates(sweep, measured, looks),
        "curves": curves(folder.parent, trials, looks),
    }


def outcome(sweep: Json) -> str:
    """A sweep in a sentence."""
    trials, ranking = sweep["trials"], sweep["ranking"]
    ended = f"{len(trials)} of {sweep.get('total', len(trials))} trials ended"
    for status in ("pruned", "failed"):
        if count := sum(trial["status"] == status for trial in trials):
            ended += f", {count} {status}"
    if not ranking:
        return f"{ended}; none was ranked yet."
    best = ranking[0]
    tied = sum(entry["tied"] is True for entry in ranking) - 1
    told = f"; {tied} others cannot be told from it" if tied else ""
    if not tied and len(ranking) > 1 and all(entry["tied"] is False for entry in ranking[1:]):
        told = "; every other one is told apart from it"
    reached = f"{words(best['parameters'])} has {sweep['metric']} {best['value']['value']:.4g}"
    return f"{ended}. The best of {len(ranking)} settings, {reached}{told}."


def has_page(runs_dir: Path, trial: Json) -> bool:
    """Whether there is something to link to."""
    return bool(trial["run"]) and (runs_dir / trial["run"] / layout.REPORT).is_file()


def words(parameters: Json) -> str:
    """Parameters in a line."""
    shown = {name: short(value) if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return ", ".join(f"{name} = {text}" for name, text in shown.items())


def look(trial: Json, ranking: Sequence[Json]) -> str:
    """The colour of a trial: the best setting, one that cannot be told from it, another, or one without a value."""
    if trial["status"] == "running":
        return "s3"
    if not trial.get("value"):
        return "off"
    place = next((entry for entry in ranking if trial["number"] in entry["trials"]), None)
    if place is None:
        return "s0"
    return "s1" if place["rank"] == 1 else "s2" if place["tied"] else "s0"


def is_log(space: Any) -> bool | None:
    """What a range says of its scale; a list of values says nothing."""
    return bool(space.get("log")) if isinstance(space, dict) else None


def scatter(name: str, space: Any, sweep: Json, measured: Sequence[Json], looks: dict[int, str]) -> Json:
    """The metric against one parameter; words stand at 0, 1, 2, …"""
    values = [trial["parameters"].get(name) for trial in measured]
    label = name
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        known = list(dict.fromkeys(str(value) for value in values))
        values = [known.index(str(value)) for value in values]
        label = f"{name}: {', '.join(f'{place} = {word}' for place, word in enumerate(known))}"
    dots = [
        Series(titled(trial), [(value, trial["value"]["value"])], looks[trial["number"]], dots=True)
        for trial, value in zip(measured, values, strict=True)
    ]
    return {"name": name, "svg": plot(f"{sweep['metric']} against {name}", label, sweep["metric"], dots, is_log(space))}


def coordinates(sweep: Json, measured: Sequence[Json], looks: dict[int, str]) -> Markup:
    """Every measured trial as a line through its parameters and its metric."""
    axes = [
        Axis(name, [trial["parameters"].get(name) for trial in measured], is_log(space))
        for name, space in sweep["parameters"].items()
    ]
    axes.append(Axis(sweep["metric"], [trial["value"]["value"] for trial in measured], False))
    return parallel(axes, [titled(trial) for trial in measured], [looks[trial["number"]] for trial in measured])


def curves(runs_dir: Path, trials: Sequence[Json], looks: dict[int, str]) -> Markup:
    """All loss curves over each other, thinned."""
    drawn = sorted((trial for trial in trials if trial["run"]), key=lambda trial: DRAWN.index(looks[trial["number"]]))
    series = [
        Series(titled(trial), thinned(losses(runs_dir / trial["run"])), looks[trial["number"]]) for trial in drawn
    ]
    return plot("Loss of every trial", "step", "loss", series)


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most CURVE_POINTS of the points, evenly, the last one among them."""
    stride = -(-len(points) // CURVE_POINTS) or 1
    return points[::-1][::stride][::-1]


def titled(trial: Json) -> str:
    """A trial's name on a chart."""
    value = f": {trial['value']['value']:.4g}" if trial.get("value") else f", {trial['status']}"
    return f"trial {trial['number']}{value}, {words(trial['parameters'])}"
