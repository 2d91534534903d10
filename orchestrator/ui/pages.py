"""What the pages show of runs and sweeps: read anew for each request, by the functions that the command line calls."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.evaluation.rows import Row
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, OrchestratorError
from orchestrator.lib.files import read_json
from orchestrator.lib.render import Renderer
from orchestrator.lib.secrecy import redacted
from orchestrator.machine import environment
from orchestrator.machine.usage import resident
from orchestrator.report.answers import all_kinds, answers_by_row
from orchestrator.report.overview import is_plain
from orchestrator.runs import store
from orchestrator.runs.locks import worker
from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run

Json = dict[str, Any]

SECONDS = 2
"""How often a page of something that goes on is read again."""
LOG_LINES = 40
PAGE = 100
"""Answers of one page."""
NONE = "no label"
BASE = "ui_base.html.j2"
"""What the templates of reports extend here, instead of what makes a single file of them."""
NAME = re.compile(r"\w[\w.-]*")
"""Of a folder under runs/: nothing that leads elsewhere."""


@dataclass(frozen=True, slots=True)
class Window:
    """A project and its runs, looked at through a browser."""

    project: Path
    runs_dir: Path

    def render(self, template: str, /, **values: Any) -> str:
        """A page, or a part of one."""
        from rich.filesize import decimal

        return Renderer(self.project)(template, base=BASE, refresh=SECONDS, decimal=decimal, **values)

    def folder(self, name: str) -> Path:
        """The folder of a run or a sweep. Raises InputError when there is none, as after it was removed."""
        folder = self.runs_dir / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            raise InputError(f"there is no run {name!r}", "It may have been removed; the list shows what there is.")
        return folder

    def run(self, name: str) -> Run:
        """A run by its whole id. Raises what `folder` and `store.load` raise."""
        return store.load(self.folder(name))


def listing(window: Window) -> Json:
    """The values of the list: runs and sweeps, the newest first."""
    from orchestrator.runs.query import HEADS, Wanted
    from orchestrator.runs.query import listing as lines

    runs = lines(window.runs_dir, Wanted())
    figures = [key for key in (runs[0] if runs else ()) if key not in HEADS]
    ended = not any(line["status"] == "running" for line in runs)
    return {"runs": runs, "figures": figures, "sweeps": sweeps(window), "live": not ended}


def sweeps(window: Window) -> list[Json]:
    """Id, status and how many trials of each sweep, the newest first; what cannot be read is left out."""
    found = []
    for file in sorted(window.runs_dir.glob(f"*/{layout.SWEEP}"), reverse=True):
        try:
            sweep = read_json(file)
            told = {"status": sweep.get("status", "running"), "trials": len(sweep["trials"])}
            found.append({"id": file.parent.name, **told})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def run_page(window: Window, name: str) -> str:
    """The page of a run: that of its report, and above it what goes on while it runs."""
    from orchestrator.report.run_page import facts
    from orchestrator.runs.query import Wanted
    from orchestrator.runs.query import listing as lines

    run = window.run(name)
    found = facts(run.folder, run.record)
    others = [line["id"] for line in lines(window.runs_dir, Wanted()) if line["id"] != name]
    told = {"answers_url": f"/run/{name}/answers", "others": others[:50], "problem": run.problem}
    live = going_on(window, run) if run.record["status"] == "running" else None
    return window.render("report.html.j2", **found, **told, live_now=live, where="runs")


def going_on(window: Window, run: Run) -> Json:
    """What a run does now: its queue of stages, who works on it, memory, and the end of the log."""
    import psutil

    at = worker(run.folder)
    memory = psutil.virtual_memory()
    log = _log(run)
    return {
        "queue": queue(window, run),
        "worker": at,
        "held": resident(at) if at else 0,
        "used": memory.total - memory.available,
        "total": memory.total,
        "gpus": environment.gpu_memory(),
        "log": log.name if log else "",
        "said": end_of(log) if log else "",
    }


def queue(window: Window, run: Run) -> list[Json]:
    """The stages of a run's plan in their order, each with its status: waiting, running, completed, …"""
    known: Mapping[str, Json] = run.record["stages"]
    names = list(dict.fromkeys([*planned(window, run.folder / layout.SPEC), *known]))
    return [{"name": name, **known.get(name, {"status": "waiting"})} for name in names]


def planned(window: Window, spec: Path) -> Sequence[str]:
    """The stages that a run's spec asks for; none where it cannot be planned here."""
    return _planned(spec, spec.stat().st_mtime_ns, window.runs_dir) if is_plain(spec) else ()


@functools.lru_cache(maxsize=32)
def _planned(spec: Path, modified: int, runs_dir: Path) -> tuple[str, ...]:
    from orchestrator.pipeline.plan import make_plan
    from orchestrator.spec.load import load_project

    try:
        return tuple(one.step.stage for one in make_plan(load_project(spec, runs_dir=runs_dir)).steps)
    except OrchestratorError:
        return ()


def sweep_page(window: Window, name: str) -> str:
    """The page of a sweep."""
    from orchestrator.report.sweep_page import facts

    folder = window.folder(name)
    if not is_plain(folder / layout.SWEEP):
        raise InputError(f"there is no sweep {name!r}", "It may have been removed; the list shows what there is.")
    found = facts(folder, read_json(folder / layout.SWEEP))
    return window.render("report_sweep.html.j2", **found, where="runs", worker=worker(folder), run_url="/run/{}")


def compare_page(window: Window, names: Sequence[str], artifact: str = "tuned") -> str:
    """Some runs side by side."""
    from orchestrator.report import loss_of_each
    from orchestrator.report.run_list import settings
    from orchestrator.runs.compare import side_by_side

    runs = [window.run(name) for name in names]
    compared = side_by_side(runs, artifact, settings(runs))
    return window.render("report_compare.html.j2", **compared, curve=loss_of_each(compared), where="runs")


def end_of(log: Path) -> str:
    """The last lines of a log, without secrets."""
    from orchestrator.pipeline.failure import tail

    return redacted("\n".join(tail(log)[-LOG_LINES:])) if is_plain(log) else ""


def _log(run: Run) -> Path | None:
    """The log of the stage that runs, or ran last."""
    stages = run.record["stages"]
    running = [name for name, entry in stages.items() if entry["status"] == "running"] or list(stages)[-1:]
    return run.folder / layout.log(running[-1]) if running else None


def answers(run: Run, asked: Mapping[str, str]) -> Json:
    """Values of the answers: `q` are words, `kind` is who is wrong, `artifact`, `expected` and `named` a cell."""
    summary: Json = {"metrics": {}, **summaries(run.folder)}
    rows = answers_by_row(run.folder, summary)
    kinds = all_kinds(rows)
    rows = [row for row in rows if not asked.get("kind") or asked["kind"] in row["kinds"]]
    words = asked.get("q", "").lower().split()
    rows = [row for row in rows if all(word in _text(row) for word in words)]
    if asked.get("artifact"):
        rows = in_cell(rows, asked, summary)
    number = int(asked["page"]) if asked.get("page", "").isdecimal() else 1
    last = max(1, -(-len(rows) // PAGE))
    number = min(max(number, 1), last)
    shown = rows[PAGE * (number - 1) : PAGE * number]
    told = {"kinds": kinds, "artifacts": [name for name in summary["metrics"] if name != "majority"], "asked": asked}
    return {"rows": shown, "count": len(rows), "number": number, "last": last, **told}


def in_cell(rows: Sequence[Json], asked: Mapping[str, str], summary: Json) -> list[Json]:
    """The rows of one cell: what it is, and which label an artifact's answer names."""
    from orchestrator.evaluation.classification import confusion

    artifact = asked["artifact"]
    labels = summary.get("detail", {}).get(artifact, {}).get("labels")
    there = [row for row in rows if artifact in row["answers"]]
    asked_rows = [Row(row["id"], row["prompt"], row["label"], row["answers"][artifact]) for row in there]
    if not labels or not asked_rows:
        return []
    table = confusion(asked_rows, labels)
    cells = zip(there, table.truth, table.named, strict=True)
    wanted = (asked.get("expected"), asked.get("named"))
    return [row for row, truth, named in cells if (truth, named or NONE) == wanted]


def _text(row: Json) -> str:
    return "\n".join([row["prompt"], row["label"], *row["answers"].values()]).lower()
