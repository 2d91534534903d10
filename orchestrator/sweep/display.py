"""A sweep on the screen: one line a trial, and the ranking at the end."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.words import agreeing, counted
from orchestrator.report.table import figure_text
from orchestrator.runs import store
from orchestrator.runs.progress import MARKS, PLAIN_SECONDS, read_log, training_line
from orchestrator.sweep.space import label
from orchestrator.sweep.sweeper import Running

Json = dict[str, Any]
SHOWN = 12
"""So many points of a ranking are printed; sweep.json and the report have all of them."""
ENDED = {
    "failed": "failed",
    "pruned": "pruned",
    "diverged": "diverged",
    "unusable": "made an unusable model",
}
"""How a trial ended that is not ranked, and what is said of it."""


class SweepDisplay:
    """Ended trials stay on the screen, running ones are shown below them; without a terminal, now and then."""

    def __init__(self, console: Console, metric: str, verbosity: int = 0) -> None:
        self._console, self._metric, self._verbosity = console, metric, verbosity
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._said = time.monotonic()

    def __enter__(self) -> SweepDisplay:
        if self._console.is_terminal and self._verbosity >= 0:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def watch(self, running: list[Running], done: int, total: int) -> None:
        """Refresh the lines of the running trials."""
        lines = [Text(f"… {self._place(one.trial.number, total)} {_state(one)}") for one in running]
        if self._live.is_started:
            self._live.update(Group(*lines))
        elif self._verbosity >= 0 and time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            for line in lines:
                self._console.print(line, highlight=False)

    def ended(self, entry: Json, total: int) -> None:
        """Print how a trial ended."""
        if self._verbosity < 0:
            return
        mark, style = MARKS.get(entry["status"], ("·", "dim"))
        parts = [f"{mark} {self._place(entry['number'], total)} {label(entry['parameters'])}"]
        if entry["value"]:
            parts.append(f"{self._metric} {figure_text(entry['value'])}")
        if entry["reason"]:
            parts.append(f"{entry['status']}: {entry['reason']}")
        parts.append("reused" if entry["reused"] else f"{entry['seconds']:.1f} s")
        self._console.print(Text("  ".join(parts), style=style), soft_wrap=True)

    def _place(self, number: int, total: int) -> str:
        return f"{number:>{len(str(total))}}/{total}"


def _state(running: Running) -> str:
    """A running trial in one line."""
    folder, elapsed = running.task.run.folder, f"{time.monotonic() - running.started:.0f} s"
    stage, entries = _stage(running), read_log(folder)
    training = f"  {training_line(entries[-1], entries)}" if stage == "train" and entries else ""
    return f"{label(running.trial.point)}  {stage} {elapsed}{training}"


def _stage(running: Running) -> str:
    try:
        stages = store.load(running.task.run.folder).record["stages"]
    except InputError:  # removed by somebody meanwhile; the trial itself will say so
        return ""
    return next((name for name, stage in stages.items() if stage["status"] == "running"), "waiting")


def show_ranking(page: Json, console: Console) -> None:
    """The ranking, what cannot be told apart in it, and how far its winner is to be believed."""
    if page["ranking"]:
        console.print(_table(page))
    for line in conclusions(page):
        console.print(line, highlight=False, soft_wrap=True)


def _table(page: Json) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    heads = ("", *page["parameters"], f"{page['metric']} (95 %)", "± seeds", "", "trials")
    for head in heads:
        table.add_column(head, no_wrap=True)
    for place in page["ranking"][:SHOWN]:
        values = (str(value) for value in place["parameters"].values())
        spread = "" if place["spread"] is None else f"{place['spread']:.1f}"
        note = "best" if place["rank"] == 1 else "no sig. diff." if place["tied"] else ""
        trials = ", ".join(str(number) for number in place["trials"])
        table.add_row(str(place["rank"]), *values, figure_text(place["value"]), spread, note, trials)
    return table


def conclusions(page: Json) -> list[str]:
    """What a ranking means, in sentences."""
    ranked, trials = page["ranking"], page["trials"]
    said = []
    for status, words in ENDED.items():
        if count := sum(trial["status"] == status for trial in trials):
            said.append(f"{count} of {counted(len(trials), 'trial')} {words}; {layout.SWEEP} has the reasons")
    if len(ranked) > len(ranked[:SHOWN]):
        said.append(f"and {len(ranked) - SHOWN} more in {layout.SWEEP}")
    if tied := sum(bool(place["tied"]) for place in ranked[1:]):
        others = counted(len(ranked) - 1, "other point")
        said.append(f"{tied} of {others} {agreeing(tied, 'show')} no significant difference from the best")
    if page.get("test"):
        test = page["test"]["metrics"]
        shown = figure_text(test[page["metric"]]) if page["metric"] in test else ""
        said.append(f"the winner on {test['n']} test rows that chose nothing: {page['metric']} {shown}")
    elif len(ranked) > 1:
        said.append(
            f"the best of {len(ranked)} looks better than it is: name data.test rows to measure it once on them"
        )
    return said
