"""Inject one fault, call the tool again, and say what it did not survive."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib.files import HashCache
from orchestrator.runs import outputs, store
from tests.faults import kinds, stand_in, tool
from tests.faults.kinds import Fault
from tests.faults.tool import Answer, Call

LINES = 10
WIDTH = 1000
SHOWN = 300

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A chain that nothing happened to."""

    fresh: Path
    """The project before it."""
    finished: Path
    """The project after it."""
    effects: tuple[str, ...]
    results: Results

    def faults(self, each: int, chance: Any) -> list[Fault]:
        """All faults, those of the tool at so many moments for each kind."""
        stages = list(self.results["outputs"])
        paths = [path for outputs in self.results["outputs"].values() for path in outputs]
        return [
            *kinds.to_the_tool(self.effects, each, chance),
            *kinds.to_a_stage(stages),
            *kinds.to_outputs(paths),
            *kinds.to_the_rest(),
        ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a fault did; no complaints means that it was survived."""

    complaints: tuple[str, ...]
    lost: int
    """Finished files that are gone or changed afterwards."""


def example(folder: Path) -> Example:
    """Run the whole chain once."""
    fresh, finished = folder / "fresh", folder / "finished"
    stand_in.make(fresh)
    shutil.copytree(fresh, finished)
    effects = tuple(tool.effects_of(finished))
    return Example(fresh, finished, effects, results(finished / "project"))


def results(project: Path) -> Results:
    """What the newest finished run holds: the hash of every output of each stage, and the figures."""
    run = next(run for run in store.every(project / "runs") if run.record["status"] == "completed")
    outputs = {
        stage: {output["path"]: output["sha256"] for output in entry["outputs"]}
        for stage, entry in run.record["stages"].items()
    }
    return {"outputs": outputs, "metrics": run.record["metrics"], "gguf": run.record["lineage"]["gguf"]}


def inject(fault: Fault, chain: Example, folder: Path) -> Verdict:
    """Let a fault happen in a copy of the project, then call the tool again as a user would."""
    shutil.copytree(chain.finished if fault.finished else chain.fresh, folder, symlinks=True)
    project = folder / "project"
    finished, started = completed(project), len(tool.ledger(project))
    fault.damage(project)
    answer = tool.run(folder, fault.call)
    repeated = finished & begun(project, started)
    finished, started = completed(project), len(tool.ledger(project))
    fault.repair(project)
    again = tool.run(folder, Call())
    repeated |= finished & begun(project, started)
    complaints = [*_about(fault, answer), *_about_again(again, project, chain)]
    if repeated and not fault.spoils:
        complaints.append(f"finished stages were repeated: {', '.join(sorted(repeated))}")
    return Verdict(tuple(complaints), 0 if fault.spoils else damaged(project))


def completed(project: Path) -> set[str]:
    """The stages that some run has finished."""
    runs = store.every(project / "runs")
    return {stage for run in runs for stage, entry in run.record["stages"].items() if entry["status"] == "completed"}


def begun(project: Path, since: int) -> set[str]:
    """The stages that were started after the first so many starts."""
    return {line.split()[0] for line in tool.ledger(project)[since:]}


def damaged(project: Path) -> int:
    """How many files are recorded as finished and are not there as recorded."""
    hashes = HashCache(project / "no-such-file", paranoid=True)
    return sum(
        bool(outputs.damage(run.folder, output, hashes))
        for run in store.every(project / "runs")
        for entry in run.record["stages"].values()
        if entry["status"] == "completed"
        for output in entry["outputs"]
    )


def _about(fault: Fault, answer: Answer) -> Iterator[str]:
    if answer.hangs_at:
        yield f"it hangs:\n{answer.hangs_at}"
    elif answer.code not in fault.codes:
        yield f"exit code {answer.code} instead of {sorted(fault.codes)}: {answer.stderr[-SHOWN:]}"
    if "Traceback" in answer.stderr:
        yield f"a traceback: {answer.stderr[-SHOWN:]}"
    if answer.stderr.count("\n") > LINES or len(answer.stderr) > LINES * WIDTH:
        yield f"a message of {answer.stderr.count(chr(10))} lines, {len(answer.stderr)} characters"
    if answer.code > 0 and not answer.stderr.lstrip().startswith(("error: ", "the report of ")):
        yield f"no message: {answer.stderr[-SHOWN:]!r}"
    if answer.code > 0 and not re.search(fault.says, answer.stderr):
        yield f"the message does not say {fault.says!r}: {answer.stderr[-SHOWN:]!r}"
    if answer.left_running:
        yield f"processes run on: {answer.left_running}"


def _about_again(again: Answer, project: Path, chain: Example) -> Iterator[str]:
    if again.hangs_at:
        yield f"the next call hangs:\n{again.hangs_at}"
    elif again.code != 0:
        yield f"the next call ends with {again.code}: {again.stderr[-SHOWN:]}"
    elif (found := results(project)) != chain.results:
        yield f"other results: {[key for key in found if found[key] != chain.results[key]]}"
    temporary = [*project.glob("**/.*.tmp"), *project.glob("**/*.partial")]
    half = [path for path in (project / "runs").glob("2*") if not (path / "run.json").is_file()]
    if left := [str(path.relative_to(project)) for path in (*temporary, *half)]:
        yield f"left behind: {left}"
