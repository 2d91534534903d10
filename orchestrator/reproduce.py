"""Is a run still what its record says, and does making it anew give the same?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import layout, records
from orchestrator.errors import GateError, InputError
from orchestrator.execute import Watcher
from orchestrator.fetch import Progress
from orchestrator.files import HashCache
from orchestrator.plan import make_plan
from orchestrator.records import Run
from orchestrator.spec.load import load_spec
from orchestrator.step import PHASES
from orchestrator.workflow import Loaded, Request, fetch, run_until

Json = dict[str, Any]
SHIPPED = ("train_data", "eval_data", "adapter", "merged_model", "gguf")
"""Parts of the lineage that a repetition must bring out again, byte by byte; logs and timings may differ."""


# ---- verify


def damaged(run: Run) -> list[str]:
    """The recorded files of a run that are gone or differ from their record, each with the reason; reads all bytes."""
    hashes = HashCache(run.folder / layout.RECORD, paranoid=True)  # never saved: nothing is taken on trust here
    return [f"{output['path']}: {why}" for output in recorded(run) if (why := _damage(run, output, hashes))]


def recorded(run: Run) -> list[Json]:
    """{path, bytes, sha256} of every output of the stages that ended well; the last stage to write a file counts."""
    stages = [entry for entry in run.record["stages"].values() if entry["status"] == "completed"]
    return list({output["path"]: output for entry in stages for output in entry["outputs"]}.values())


def _damage(run: Run, output: Json, hashes: HashCache) -> str:
    path = run.folder / output["path"]
    if not path.is_file():
        return "is gone"
    if (size := path.stat().st_size) != output["bytes"]:
        return f"has {size:,} bytes instead of {output['bytes']:,}"
    return "" if hashes.sha256(path) == output["sha256"] else "has other contents"


# ---- reproduce


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between a run and its repetition."""

    again: Run
    results: tuple[str, ...]
    """Of what is shipped or measured; empty when the run was reproduced."""
    made_with: tuple[str, ...]
    """Of interpreter, packages, GPU and commit: where to look for the cause."""
    files: tuple[str, ...]
    """All outputs with other contents; some of them hold durations, and never come out the same."""

    def to_json(self) -> Json:
        """The answer of `reproduce --json`."""
        answer = {"run": self.again.id, "reproduced": not self.results}
        return {**answer, "results": self.results, "made_with": self.made_with, "files": self.files}


def reproduce(run: Run, project: Path, into: Path, watcher: Watcher, progress: Progress) -> Comparison:
    """Make a run anew in another folder of runs, taking over no result, and compare the two.

    Raises InputError when the run has no finished stage or its spec no longer holds, and what a chain raises.
    """
    if into.resolve() == run.folder.parent.resolve():
        raise InputError(f"{into} holds the run itself", "Name another folder with --into: nothing may be taken over.")
    path = run.folder / layout.SPEC
    loaded = Loaded(Request(path, runs_dir=into), load_spec(path, project=project))
    fetch(loaded, progress)
    try:
        again = run_until(loaded, _furthest(run, loaded), watcher, progress)
    except GateError:  # the same verdict is part of the same result
        again = records.find(into, None)
    return compare(run, again)


def _furthest(run: Run, loaded: Loaded) -> str:
    """The last phase that the run finished a stage of."""
    steps = [planned.step for planned in make_plan(loaded.question, loaded.request.hashes).steps]
    done = [PHASES.index(step.phase) for step in steps if run.stage(step.stage).get("status") == "completed"]
    if not done:
        raise InputError(f"run {run.id} has finished nothing", "Name a run that has; see `orchestrator runs list`.")
    return PHASES[max(done)]


def compare(run: Run, again: Run) -> Comparison:
    """What differs between two runs of the same spec."""
    before, after = _hashes(run), _hashes(again)
    return Comparison(
        again,
        tuple(_differing(_results(run), _results(again))),
        tuple(_differing(_flat(run.record["environment"]), _flat(again.record["environment"]), values=True)),
        tuple(_differing(before, after)),
    )


def _results(run: Run) -> Json:
    lineage = {key: run.record["lineage"].get(key) for key in SHIPPED}
    return _flat({**lineage, "metrics": run.record["metrics"]})


def _hashes(run: Run) -> Json:
    return {output["path"]: output["sha256"] for output in recorded(run)}


def _flat(value: Json, prefix: str = "") -> Json:
    """Nested keys as one dotted key each."""
    found: Json = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found


def _differing(before: Json, after: Json, values: bool = False) -> Iterator[str]:
    for key in dict.fromkeys([*before, *after]):
        if (old := before.get(key)) != (new := after.get(key)):
            yield f"{key}: {old} → {new}" if values else key
