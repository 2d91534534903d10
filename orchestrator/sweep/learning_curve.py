"""Is my data enough? Trainings on shares of it, the usual power law through them, and what doubling would bring.

error(n) = floor + scale · n^(−rate), as in Hestness et al., Deep Learning Scaling is Predictable, Empirically (2017).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.data.assemble import Wanted, assemble
from orchestrator.data.reading import MIN_TRAINING_ROWS
from orchestrator.evaluation.metric import is_lower_better, primary_of
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import write_json, write_text
from orchestrator.lib.render import Renderer
from orchestrator.report.charts import Chart, Point, Series, plot
from orchestrator.spec.load import Project
from orchestrator.spec.sections import Spec, Sweep
from orchestrator.sweep.trial import SEEDED, TrialFactory

KIND = "learning-curve"
KEY = "data.max_samples"
PICTURE = "learning-curve.svg"
LEAST_POINTS = 5
"""A law of three parameters passes through three points whatever they are."""
RESAMPLES = 200
BAR = 40
"""Characters of the longest bar."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted power law of an error that falls with n."""

    floor: float
    scale: float
    rate: float

    def at(self, n: float) -> float:
        """The error with n rows."""
        return float(self.floor + self.scale * n**-self.rate)


def shares(text: str) -> list[float]:
    """`0.1,0.5,1` as numbers. Raises InputError unless there are three or more of them above 0 and up to 1."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if len(found) < 3 or not all(0 < share <= 1 for share in found):
        raise InputError(f"--fractions {text!r} are not three or more shares", "Write them as 0.1,0.25,0.5,1.")
    return found


def factory(
    project: Project, wanted: Sequence[float], seeds: int, metric: str | None, progress: Progress
) -> TrialFactory:
    """The sweep behind the curve: sizes × seeds, each with its own sample and its own training seed.

    The untouched model is left out: it is the same at every size. Raises InputError when the data is too small.
    """
    spec = project.spec
    rows = count_rows(spec, project.root)
    sizes = sorted({max(MIN_TRAINING_ROWS, round(share * rows)) for share in wanted})
    if len(sizes) < 3:
        raise InputError(
            f"{rows} training rows are too few for a curve", f"Each share needs {MIN_TRAINING_ROWS} or more."
        )
    chosen = metric or primary_of(spec.evaluate.task)
    parallel: Any = spec.sweep.parallel if spec.sweep else 1
    sweep = Sweep(method="grid", parameters={KEY: sizes}, metric=chosen, seeds=seeds, parallel=parallel)
    # A name of its own, so that no run of the spec itself is scored again without its baseline.
    always = {"name": f"{spec.name[:58]}-curve", "evaluate.baseline": False}
    return TrialFactory(project, sweep, (*SEEDED, "data.seed"), always, kind=KIND, progress=progress)


def count_rows(spec: Spec, project: Path) -> int:
    """How many rows the spec trains on when none are left out."""
    whole = spec.model_copy(update={"data": spec.data.model_copy(update={"max_samples": None})})
    return len(assemble(Wanted.of_spec(whole, project)).train)


def finish(page: Json, project: Project) -> Json:
    """Fit the curve to a finished sweep, draw it, and write both to the sweep's folder; returns the page with it."""
    folder = project.runs_dir / page["id"]
    done = [trial for trial in page["trials"] if trial["status"] in ("completed", "unusable")]
    points = [(trial["parameters"][KEY], trial["value"]["value"]) for trial in done]
    page = page | {"curve": describe(points, page["metric"])}
    if points:
        chart = picture(page["curve"], page["metric"])
        write_text(folder / PICTURE, Renderer(project.root)("learning-curve.svg.j2", chart=chart))
    write_json(folder / layout.SWEEP, page)
    return page


def describe(points: Sequence[tuple[int, float]], metric: str) -> Json:
    """The curve as plain JSON: its points, the fitted law, and the sentence; no law where the points are too few."""
    sizes = sorted({n for n, _ in points})
    groups = [(n, [value for size, value in points if size == n]) for n in sizes]
    known: Json = {
        "points": [{"rows": n, "values": values, "mean": statistics.fmean(values)} for n, values in groups],
        "law": None,
        "doubled": None,
    }
    if len(sizes) < 3 or len(points) < LEAST_POINTS:
        said = f"{len(points)} trainings on {len(sizes)} sizes are too few to say what more data would bring"
        return known | {"sentence": f"{said}; use more --fractions or --seeds."}
    down = is_lower_better(metric)
    errors = [(n, value if down else 100 - value) for n, value in points]
    law = fit(errors)
    known["law"] = {"of": metric if down else f"100 − {metric}", **asdict(law)}
    known["doubled"] = gain(law, errors)
    return known | {"sentence": sentence(known["doubled"], metric, sizes[-1])}


def fit(points: Sequence[tuple[int, float]]) -> Law:
    """The law closest to (n, error) in least squares; floor and scale are not negative, the rate is 0.01 to 2."""
    import numpy as np
    from scipy.optimize import nnls

    n, error = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    # For a given rate the law is linear in floor and scale, which has one exact solution: no start value, no failure.
    solved = []
    for rate in np.geomspace(0.01, 2, 60):
        (floor, scale), rest = nnls(np.column_stack([np.ones_like(n), n**-rate]), error)
        solved.append((rest, float(floor), float(scale), float(rate)))
    return Law(*min(solved)[1:])


def gain(law: Law, points: Sequence[tuple[int, float]]) -> Json:
    """What twice the most rows would take off the error, with the middle 95 % of refits to resampled residuals."""
    import numpy as np

    most = max(n for n, _ in points)
    n, error = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    fitted = np.array([law.at(size) for size in n])
    # Three parameters were fitted, which makes residuals smaller than the errors they stand for.
    residuals = (error - fitted) * (len(n) / max(1, len(n) - 3)) ** 0.5
    generator = np.random.default_rng(0)
    gains = []
    for _ in range(RESAMPLES):
        again = fit(list(zip(n, fitted + generator.choice(residuals, len(n)), strict=True)))
        gains.append(again.at(most) - again.at(2 * most))
    value = law.at(most) - law.at(2 * most)
    low, high = (float(bound) for bound in np.quantile(gains, [0.025, 0.975]))
    return {"rows": 2 * most, "gain": {"value": value, "low": min(low, value), "high": max(high, value)}}


def picture(curve: Json, metric: str) -> Chart | None:
    """Every training, the law through them, dashed from the largest size to twice of it, and how sure that end is."""
    points = [(point["rows"], value) for point in curve["points"] for value in point["values"]]
    drawn = [Series(metric, points, "s1", dots=True)]
    if curve["law"]:
        law = Law(*(curve["law"][name] for name in ("floor", "scale", "rate")))
        sign, top = (1, 0) if is_lower_better(metric) else (-1, 100)
        first, last = min(points)[0], max(points)[0]

        def path(start: float, end: float) -> list[Point]:
            sizes = [start * (end / start) ** (step / 30) for step in range(31)]
            return [(n, top + sign * law.at(n)) for n in sizes]

        gains = curve["doubled"]["gain"]
        ends = [(2 * last, top + sign * max(0.0, law.at(last) - gains[end])) for end in ("low", "high")]
        drawn += [Series(metric, path(first, last)), Series(metric, path(last, 2 * last), "off"), Series(metric, ends)]
    return plot(curve["sentence"], "training rows", metric, drawn, log_x=True)


def sentence(doubled: Json, metric: str, most: int) -> str:
    """What doubling the data would likely bring."""
    falls = is_lower_better(metric)
    digits, least = (3, 0.005) if falls else (1, 1)
    gain, low, high = (f"{doubled['gain'][part]:.{digits}f}" for part in ("value", "low", "high"))
    what = f"likely lower {metric} by {gain}" if falls else f"likely bring {gain} points of {metric}"
    if doubled["gain"]["high"] < least:
        what = f"hardly change {metric}"
    return f"Doubling the data from {most} to {doubled['rows']} rows would {what} (95 %: {low} to {high})."


def text(page: Json) -> str:
    """The curve for a terminal: a bar for each size, and the sentence."""
    curve, metric = page["curve"], page["metric"]
    most = max((point["mean"] for point in curve["points"]), default=0) or 1
    lines = [f"rows  {metric}"]
    for point in curve["points"]:
        bar, values = "█" * round(point["mean"] / most * BAR), point["values"]
        seeds = f"{min(values):.4g}–{max(values):.4g}, {len(values)} seed{'s' if len(values) > 1 else ''}"
        lines.append(f"{point['rows']:>5} {bar:<{BAR}} {point['mean']:.4g} ({seeds})")
    return "\n".join([*lines, curve["sentence"]])
