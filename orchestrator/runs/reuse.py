"""Is a step's result there already, and whose is it? The questions, in the order of this file:

1. A result has two names: how it comes about, and the contents of what it is made from (`named`, `contents`; the hashes
   are those of `lib/step.py`).
2. The run that trains the same is the one to go on with (`own_run`).
3. Before anything starts, its record and its files say which steps are up to date, and why others are not (`judge`).
4. What only follows from steps that were made again, and came out the same, is `spared`.
5. As a step is about to start, another run may have its result (`donor`).
6. Runs are looked up by a link, and where that does not help in the list of all of them (`holder`, `trained`).

Only 3 and 6 look at the disk, and change nothing but links; `pipeline/scheduler.py` acts on what is said here.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HashCache
from orchestrator.lib.step import Step, content_fingerprint, fingerprint
from orchestrator.runs import cache, store
from orchestrator.runs.cache import Result
from orchestrator.runs.store import Run

FORCED = "forced"
CHANGED = "an output is missing or changed"


@dataclass(frozen=True, slots=True)
class Planned:
    """A step and whether its result is already there."""

    step: Step
    fingerprint: str
    up_to_date: bool = False
    why: str = ""
    unless_same: bool = False
    """Whether its own result is whole, and counts if what it follows from is made again and comes out the same."""
    own_fingerprint: str = ""
    """Its fingerprint without those of the stages that it needs."""


def named(steps: Sequence[Step], aliases: Mapping[str, str]) -> list[Planned]:
    """Steps with their fingerprints, each including those of the stages it needs; nothing is judged yet."""
    prints: dict[str, str] = {}
    for step in steps:
        prints[step.stage] = fingerprint(step, prints, aliases)
    return [
        Planned(step, prints[step.stage], own_fingerprint=fingerprint(step, dict.fromkeys(step.needs, ""), aliases))
        for step in steps
    ]


def contents(one: Planned, run: Run) -> str:
    """The fingerprint of the contents that a step reads of its run, as they are now; empty where it is not known what
    it reads."""
    left = (output for stage in one.step.needs for output in run.stage(stage).get("outputs", ()))
    return content_fingerprint(one.step, one.own_fingerprint, {output["path"]: output["sha256"] for output in left})


def own_run(runs_dir: Path, name: str, steps: Sequence[Planned], force: Collection[str]) -> Run | None:
    """The newest run of a name that trains, or trained, what the steps do.

    None where its training is to be repeated: that is a result that others may have looked at, so a new run is made.
    """
    if any(_is_forced(one.step, force) for one in steps if one.step.phase in ("prepare", "train")):
        return None
    about = next((one for one in steps if one.step.stage == "train"), steps[0])
    return trained(runs_dir, name, about.fingerprint)


def _is_forced(step: Step, force: Collection[str]) -> bool:
    return step.stage in force or step.phase in force


def judge(steps: Sequence[Planned], run: Run | None, force: Collection[str], hashes: HashCache) -> list[Planned]:
    """Each step, whether its result is there, and why, or why not."""
    reasons = [_why_stale(one, run, force, hashes) for one in steps]
    believed = _by_size_alone(steps, run, hashes)
    judged: dict[str, Planned] = {}
    for one, why in zip(steps, reasons, strict=True):
        stage, again = one.step.stage, [judged[need] for need in one.step.needs if not judged[need].up_to_date]
        if why:
            judged[stage] = replace(one, why=why)
        elif again:
            judged[stage] = _follows(one, again)
        else:
            good = "up to date, by its size alone: --paranoid reads it" if stage in believed else "up to date"
            judged[stage] = replace(one, up_to_date=True, why=good)
    return list(judged.values())


def _why_stale(one: Planned, run: Run | None, force: Collection[str], hashes: HashCache) -> str:
    """Why a step's own result does not count; empty where it is whole. Reads the outputs."""
    if _is_forced(one.step, force):
        return FORCED
    if run is None:
        return "new run"
    recorded = run.stage(one.step.stage)
    if not recorded:
        return "not done yet"
    if recorded["status"] != "completed":
        return f"{recorded['status']} last time"
    if recorded.get("fingerprint") != one.fingerprint:
        return "its configuration or inputs changed"
    return "" if run.has(one.step.stage, one.fingerprint, hashes) else CHANGED


def _by_size_alone(steps: Sequence[Planned], run: Run | None, hashes: HashCache) -> set[str]:
    """The stages of which some output was never read on this machine, and is believed to be what it was."""
    if run is None:
        return set()
    left = {one.step.stage: run.stage(one.step.stage).get("outputs", ()) for one in steps}
    return {stage for stage, of in left.items() if any(str(run.folder / one["path"]) in hashes.believed for one in of)}


def _follows(one: Planned, again: Sequence[Planned]) -> Planned:
    """A step whose own result is whole, but follows from others that are made again."""
    same = all(before.why == CHANGED or before.unless_same for before in again)
    why = f"after {again[0].step.stage}{', unless that comes out the same' if same else ''}"
    return replace(one, why=why, unless_same=same)


def spared(
    waiting: Sequence[Planned], running: Collection[str], run: Run, before: Mapping[str, list[Any] | None]
) -> Iterator[Planned]:
    """What only follows from stages that were made again, and came out the same. `before` has the outputs, as they were
    recorded, of each stage that was to be made again."""

    def came_out_the_same(stage: str) -> bool:
        return stage not in before or before[stage] == run.stage(stage).get("outputs")

    unfinished = {one.step.stage for one in waiting} | {*running}
    for one in (one for one in waiting if one.unless_same):
        if not unfinished.intersection(one.step.needs) and all(map(came_out_the_same, one.step.needs)):
            unfinished.discard(one.step.stage)
            yield one


def donor(run: Run, one: Planned, contents: str, hashes: HashCache) -> Run | None:
    """A run beside this one that has a step's result, `contents` being its fingerprint of contents; None for what is
    to be done anew.

    What came about in the same way counts only if it was made from the same files: a training that was repeated may
    have come out otherwise, and what follows from one must not stand beside the other.
    """
    if one.why == FORCED:
        return None
    stage, beside = one.step.stage, run.folder.parent
    same_way = holder(beside, stage, one.fingerprint, hashes)
    if same_way and same_way.folder != run.folder and _same_before(one.step, run, same_way):
        return same_way
    same_files = holder(beside, stage, contents, hashes) if contents else None
    return same_files if same_files and same_files.folder != run.folder else None


def _same_before(step: Step, *runs: Run) -> bool:
    """Whether runs have the same results of the stages that a step needs."""
    ours, theirs = ([run.stage(stage).get("outputs") for stage in step.needs] for run in runs)
    return ours == theirs


def holder(runs_dir: Path, stage: str, fingerprint: str, hashes: HashCache | None = None) -> Run | None:
    """A run whose stage ended well with this fingerprint (or this one of contents) and is whole, the newest that is
    known of, or None."""
    places = (f'$.stages."{stage}".{name}' for name in cache.PRINTS)
    having = "? in (json_extract(record, ?), json_extract(record, ?))", fingerprint, *places
    return _found(runs_dir, cache.stage(stage, fingerprint), lambda run: run.has(stage, fingerprint, hashes), having)


def trained(runs_dir: Path, name: str, fingerprint: str) -> Run | None:
    """The newest run of a name whose training has, or had, this fingerprint."""
    having = "name = ? and fingerprint = ?", name, fingerprint

    def trains(run: Run) -> bool:
        return bool(run.record["name"] == name and run.record.get("fingerprint") == fingerprint)

    return _found(runs_dir, cache.training(name, fingerprint), trains, having)


def _found(runs_dir: Path, result: Result, has: Callable[[Run], bool], having: tuple[str, ...]) -> Run | None:
    """The run that a result is linked to; where that one has it no longer, the newest of those that the list has."""
    if not runs_dir.is_dir():
        return None
    complete = cache.is_complete(runs_dir, _results)
    linked = cache.find(runs_dir, result)
    if linked is None and complete:
        return None
    for name in itertools.chain([linked] if linked else [], _listed(runs_dir, *having)):
        with contextlib.suppress(InputError):  # removed, or damaged
            if has(run := store.load(runs_dir / name)):
                cache.remember(run.folder, *([result] if name != linked else []))
                return run
    return None


def _results(folder: Path) -> Iterator[Result]:
    """All that a run has, for the cache; nothing where its record cannot be read."""
    with contextlib.suppress(InputError):
        record = store.load(folder).record
        yield from cache.trainings(record)
        for stage, entry in record["stages"].items():
            if entry.get("status") == "completed":
                yield from cache.results_of(stage, entry)


def _listed(runs_dir: Path, condition: str, *values: str) -> Iterator[str]:
    with store.index(runs_dir) as connection:
        query = f"select id from runs where {condition} order by id desc"  # nosec B608
        yield from (name for (name,) in connection.execute(query, values).fetchall())
