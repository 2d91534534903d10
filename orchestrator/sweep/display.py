"""A sweep on the screen: one line a trial, and the ranking at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.language import localised
from orchestrator.lib.words import agreeing, counted
from orchestrator.report.progress import MARKS, PLAIN_SECONDS
from orchestrator.report.table import figure_text
from orchestrator.runs import store
from orchestrator.runs.training_log import read_log, short_line
from orchestrator.sweep.records import is_best
from orchestrator.sweep.space import label
from orchestrator.sweep.sweeper import Running

Json = dict[str, Any]
COLUMNS = 80
"""What a line of a trial fits in."""
LEAST = 12
"""Characters of what a trial tries that are always shown."""
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
        width = self._console.width if self._live.is_started else COLUMNS
        lines = [Text(fitted([f"… {self._place(one.trial.number, total)}", *_state(one)], width)) for one in running]
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
        came = f"{self._metric} {figure_text(entry['value'])}" if entry["value"] else ""
        why = f"{entry['status']}: {entry['reason']}" if entry["reason"] else ""
        took = "reused" if entry["reused"] else f"{entry['seconds']:.1f} s"
        place = f"{mark} {self._place(entry['number'], total)}"
        line = fitted([place, label(entry["parameters"]), came or why, took], COLUMNS)
        self._console.print(Text(line, style=style), soft_wrap=True)
        if why:
            self._console.print(Text(f"    {why}", style=style), soft_wrap=True)

    def _place(self, number: int, total: int) -> str:
        return f"{number:>{len(str(total))}}/{total}"


def fitted(parts: Sequence[str], width: int) -> str:
    """A place, what a trial tries, and more, in one line that fits: what is tried is cut first, then the end."""
    head, tried, *rest = parts
    after = "  ".join(part for part in rest if part)
    tried = _cut(tried, max(LEAST, width - cell_len(head) - cell_len(after) - 4))
    return _cut("  ".join(part for part in (head, tried, after) if part), width)


def _cut(text: str, width: int) -> str:
    """A text in no more columns than that; Chinese takes two a character."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _state(running: Running) -> tuple[str, ...]:
    """What a running trial tries, and how far it is."""
    folder, elapsed = running.task.run.folder, f"{time.monotonic() - running.started:.0f} s"
    stage, entries = _stage(running), read_log(folder)
    training = short_line(entries[-1]) if stage == "train" and entries else ""
    return label(running.trial.point), f"{stage} {elapsed}", localised(training)


def _stage(running: Running) -> str:
    try:
        stages = store.load(running.task.run.folder).record["stages"]
    except InputError:  # removed by somebody meanwhile; the trial itself will say so
        return ""
    return next((name for name, stage in stages.items() if stage["status"] == "running"), localised("waiting"))


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
        note = "best" if is_best(place) else "no sig. diff." if place["tied"] and place["rank"] > 1 else ""
        note = localised(note)
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
    if ranked and not is_best(ranked[0]):
        said.append("none is the best: no point is shown to beat what needs no training (evaluate.better_than)")
        return said
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
