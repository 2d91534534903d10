"""A sweep's folder under runs/: sweep.json, which is for reading, and Optuna's journal, from which a sweep goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json, sha256_of, write_json
from orchestrator.pipeline.plan import Plan
from orchestrator.runs import store
from orchestrator.runs.store import Run
from orchestrator.spec.sections import Sweep

SCHEMA = 1
SWEEP = "sweep"
"""The kind of a sweep that a spec asks for; a learning curve is another."""
Json = dict[str, Any]


def key_of(base: Plan, sweep: Sweep, kind: str) -> str:
    """What makes two sweeps the same: the chain of the unchanged spec, data included, and what is searched.

    How many trials, how many at a time, and where, may change: the sweep then goes on.
    """
    prints = [planned.fingerprint for planned in base.steps if planned.step.stage in ("train", "score")]
    searched = sweep.model_dump(mode="json", exclude={"trials", "parallel", "executor", "ray", "slurm"})
    return sha256_of(json.dumps([kind, prints, searched], ensure_ascii=False))


def open_folder(runs_dir: Path, name: str, kind: str, key: str) -> Path:
    """The folder of the sweep with this key, created where there is none. `kind` is part of its name."""
    for file in sorted(runs_dir.glob(f"*-{name}-{kind}-*/{layout.SWEEP}"), reverse=True):
        if read_json(file).get("key") == key:
            return file.parent
    folder = runs_dir / store.new_id(f"{name}-{kind}")
    write_json(folder / layout.SWEEP, {"schema": SCHEMA, "id": folder.name, "name": name, "kind": kind, "key": key,
                                       "created_at": store.now(), "trials": [], "ranking": []})  # fmt: skip
    return folder


def find(runs_dir: Path, wanted: str | None) -> Path:
    """The folder of the sweep that `wanted` names: an id, a part of one, a folder; None for the newest of a spec.

    Raises InputError when there is none or more than one.
    """
    if wanted and (Path(wanted) / layout.SWEEP).is_file():
        return Path(wanted)
    found = sorted((file.parent for file in runs_dir.glob(f"*/{layout.SWEEP}")), reverse=True)
    matches = [folder for folder in found if (wanted in folder.name if wanted else read(folder)["kind"] == SWEEP)]
    if not matches:
        what = f"no sweep matches {wanted!r}" if wanted else f"no sweeps in {runs_dir.name}/"
        raise InputError(what, "Make one with `orchestrator sweep`.")
    if wanted and len(matches) > 1 and matches[0].name != wanted:
        names = ", ".join(folder.name for folder in matches[:3])
        raise InputError(f"{wanted!r} matches {len(matches)} sweeps: {names}", "Give more of the id.")
    return matches[0]


def read(folder: Path) -> Json:
    """What sweep.json says."""
    found: Json = read_json(folder / layout.SWEEP)
    return found


def is_best(place: Json) -> bool:
    """Whether a place of a ranking is the best one: the first, of a model that learnt something."""
    return bool(place["rank"] == 1 and place.get("learnt", True))


def best_trial(folder: Path) -> Json:
    """The entry of the winner. Raises InputError while no trial has succeeded."""
    page = read(folder)
    if not page["ranking"]:
        raise InputError(f"no trial of {folder.name} has succeeded yet", "Run `orchestrator sweep` again.")
    if not is_best(page["ranking"][0]):
        raise InputError(
            f"no trial of {folder.name} learnt anything: none is shown to beat what needs no training",
            "Try other learning rates or more epochs; `evaluate.better_than: []` asks for nothing.",
        )
    number = page["ranking"][0]["best_trial"]
    found: Json = next(trial for trial in page["trials"] if trial["number"] == number)
    return found


def best_run(folder: Path) -> Run:
    """The winner's run, whose record `runs best` prints."""
    return store.load(folder.parent / best_trial(folder)["run"])
