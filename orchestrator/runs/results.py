"""What a run measured, read from the one place that is proven: the summaries that its scoring stages left."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache, read_json
from orchestrator.runs import proof, store
from orchestrator.runs.outputs import damage
from orchestrator.runs.store import Run


def summaries(folder: Path) -> dict[str, Any]:
    """What the scoring stages of a run measured: the gate's verdict laid over the scores, and figures of preference
    or perplexity beside those of the answers.

    A file that is not as its stage left it says nothing: it is named under `not_as_recorded`, and the figures are then
    those of the record, without the rest.
    """
    run = _loaded(folder)
    changed = _changed_summaries(run) if run else []
    merged = _merged(folder, skipped=changed)
    return {**merged, "metrics": run.record["metrics"], "not_as_recorded": changed} if run and changed else merged


def metrics(folder: Path) -> dict[str, Any]:
    """Artifact → figures with intervals, of all artifacts that were scored."""
    found: dict[str, Any] = summaries(folder).get("metrics", {})
    return found


def measured(folder: Path) -> dict[str, Any]:
    """What a record says of it: the figures, and what is said of the tuned model besides, whether its general ability
    was kept."""
    found = summaries(folder)
    general = {key: found["general"][key] for key in ("verdict", "sentence")} if found.get("general") else None
    return {"metrics": found.get("metrics", {}), **({"general": general} if general else {})}


SCORING = ("keep", "score", "judge", "baselines", "perplexity", "preference", "confidence", "general", "mixture")
"""Our stages that measure; what the later ones say of answers is laid over what the earlier ones did. Those that
somebody adds come behind them."""


def _loaded(folder: Path) -> Run | None:
    try:
        return store.load(folder)
    except InputError:  # a page can be made of a folder that is only part of a run
        return None


def _changed_summaries(run: Run) -> list[str]:
    hashes, known = HashCache(paranoid=True), proof.recorded(run)
    entries = [entry for path, entry in known.items() if fnmatch(path, layout.summary("*"))]
    return [entry["path"] for entry in entries if damage(run.folder, entry, hashes)]


def _measuring(folder: Path) -> list[str]:
    """The stages whose summaries are read, in that order."""
    there = {file.stem.removeprefix("summary-") for file in folder.glob(layout.summary("*"))}
    return [*(stage for stage in SCORING if stage in there), *sorted(there.difference(SCORING))]


def _merged(folder: Path, skipped: Sequence[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for stage in _measuring(folder):
        summary = {} if layout.summary(stage) in skipped else _summary(folder, stage)
        if stage in ("score", "judge"):
            merged |= summary
            continue
        for artifact, figures in summary.get("metrics", {}).items():
            known = merged.setdefault("metrics", {})
            known[artifact] = {**known.get(artifact, {}), **figures}
        if stage == "baselines" and summary:
            merged |= _beside_baselines(merged, summary)
        if stage in summary:  # what a stage says of itself beside the figures
            merged[stage] = summary[stage]
    return merged


def _beside_baselines(merged: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """What needs no training stands before what was trained, and the tuned model is held first against the best."""
    from orchestrator.evaluation.learnt import UNTRAINED, best_first

    known = merged["metrics"]
    names = [*(name for name in UNTRAINED if name in known), *known]
    comparisons = [*merged.get("comparisons", ()), *summary["comparisons"]]
    return {
        "metrics": {name: known[name] for name in names},
        "detail": {**merged.get("detail", {}), **summary["detail"]},
        "comparisons": best_first(comparisons),
    }


def _summary(folder: Path, stage: str) -> dict[str, Any]:
    file = folder / layout.summary(stage)
    try:
        found: dict[str, Any] = read_json(file)
    except (FileNotFoundError, ValueError):  # not there yet, or cut when its stage was killed
        return {}
    return found
