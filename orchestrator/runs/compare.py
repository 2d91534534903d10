"""Some runs beside each other: which settings differ, whether the figures do, and the curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import from_yaml, read_json
from orchestrator.runs.results import metrics, summaries
from orchestrator.runs.store import Run
from orchestrator.runs.training_log import curve, read_log

if TYPE_CHECKING:
    from orchestrator.evaluation.rows import Row

Json = dict[str, Any]


def side_by_side(runs: Sequence[Run], artifact: str = "tuned", given: Sequence[Json] | None = None) -> Json:
    """Settings and figures with a value for each run, the first run against each other one, and the losses.

    `given` are each run's settings by key; without them those of its configurations are compared.
    Raises InputError for fewer than two runs.
    """
    if len(runs) < 2:
        raise InputError("a comparison takes two runs or more", "List them with `orchestrator runs list`.")
    return {
        "artifact": artifact,
        "runs": [{"id": run.id, "name": run.record["name"], "status": run.record["status"]} for run in runs],
        "settings": differing(given or [settings(run) for run in runs]),
        "figures": figures(runs, artifact),
        "sentences": [sentence(other, runs[0], artifact) for other in runs[1:]],
        "losses": {run.id: curve(read_log(run.folder), "loss") for run in runs},
    }


def settings(run: Run) -> Json:
    """Every value of a run's rendered configurations, as `train.learning_rate`, and the packages' versions."""
    found: Json = {}
    readers: dict[str, Callable[[str], Any]] = {".yaml": from_yaml, ".json": json.loads}
    for file in sorted((run.folder / "configs").glob("*")):
        if read := readers.get(file.suffix):  # none for own/, where the user's metrics are kept
            found |= dict(dotted(read(file.read_text(encoding="utf-8")), file.stem))
    return found | dict(dotted(run.record.get("environment", {}).get("packages", {}), "package"))


def differing(all_settings: Sequence[Json]) -> list[Json]:
    """The settings that are not the same everywhere; None where a run has none."""
    keys = dict.fromkeys(key for one in all_settings for key in one)
    lines = [{"key": key, "values": [one.get(key) for one in all_settings]} for key in keys]
    return [line for line in lines if any(value != line["values"][0] for value in line["values"])]


def figures(runs: Sequence[Run], artifact: str) -> list[Json]:
    """Each metric of an artifact: a figure, or None, for each run."""
    measured = [metrics(run.folder).get(artifact, {}) for run in runs]
    names = dict.fromkeys(metric for one in measured for metric in one if metric != "n")
    return [{"metric": name, "values": [one.get(name) for one in measured]} for name in names]


def sentence(run: Run, reference: Run, artifact: str) -> str:
    """Whether a run does better than another on the same rows, by the paired test, or why that cannot be said."""
    from orchestrator.evaluation.compare import Basis, compare
    from orchestrator.evaluation.rows import read_rows

    files = [each.folder / layout.predictions(artifact) for each in (run, reference)]
    if missing := [each.id for each, file in zip((run, reference), files, strict=True) if not file.is_file()]:
        return f"{artifact} was not measured in {', '.join(missing)}"
    detail = summaries(run.folder).get("detail", {}).get(artifact, {})
    labels = detail.get("labels")
    task = detail.get("task", "generation")
    try:
        rows, others = (read_rows(file) for file in files)
        if task == "tools":
            rows, others = (_with_calls(each, of) for each, of in zip((run, reference), (rows, others), strict=True))
        return compare(rows, others, Basis(task, (run.id, reference.id), labels)).sentence
    except InputError as error:
        return error.message


def _with_calls(run: Run, rows: Sequence[Row]) -> list[Row]:
    """The rows with the calls in them: what a GGUF answered was written without."""
    from orchestrator.evaluation.calls import CallReader

    reader = CallReader(read_json(run.folder / layout.SERVING)["template"])
    return [row.with_calls(reader) for row in rows]


def dotted(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested keys as one key each, such as `train.learning_rate`, with their values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from dotted(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
