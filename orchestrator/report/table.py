"""The table at the end of the chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table

from orchestrator.evaluation.learnt import gain, gain_sentence
from orchestrator.evaluation.metric import AGREEMENT, DIVERGENCE, METRICS, READING_DIVERGENCE, added, primary
from orchestrator.lib.language import localised

Summary = Mapping[str, Any]
SHORT = {"cannot tell": "no sig. diff."}
"""Verdicts as a column has room for them: no significant difference, which the sentences below the table spell out."""
Cell = Callable[[str, Summary], str]
"""Artifact and summary → what the table shows."""


def artifact_table(summary: Summary, console: Console) -> None:
    """Prints a row for each artifact of a summary, then what its comparisons and its recommendation say.

    80 columns are enough; without a terminal, or with NO_COLOR, the same text is plain.
    """
    if summary.get("metrics"):  # a training whose checkpoint was chosen has said something before anything is measured
        console.print(_table(summary))
    for sentence, style in _sentences(summary):
        console.print(Padding(sentence, (0, 0, 0, 2), style=style), highlight=False)


def _sentences(summary: Summary) -> Iterator[tuple[str, str]]:
    """What stands below the table, each with its style."""
    if keep := summary.get("keep"):
        yield keep["sentence"], "dim"
    if best := gain(summary):
        yield gain_sentence(best), "bold"
    yield from ((comparison["sentence"], "dim") for comparison in summary.get("comparisons", ()))
    yield from ((line, "dim") for line in divergence_lines(summary))
    yield from ((f"! {note}", "yellow") for note in summary.get("notes", ()))
    if recommendation := summary.get("recommendation"):
        yield f"* {recommendation['sentence']}", "green"
    if mixture := summary.get("mixture"):
        yield mixture["sentence"], "dim"
    if known := _confidence(summary):
        yield known, "dim"
    if general := summary.get("general"):
        yield general["sentence"], "yellow" if general["verdict"] == "damaged" else "dim"


def _confidence(summary: Summary) -> str:
    """How far the recommended file's own probabilities go; of the first one where none is recommended."""
    found = summary.get("confidence") or {}
    recommended = (summary.get("recommendation") or {}).get("artifact")
    artifact = recommended if recommended in found else next(iter(found), "")
    return f"confidence of {artifact}: {found[artifact]['sentence']}" if artifact else ""


def divergence_lines(summary: Summary) -> list[str]:
    """Which files are nearer to what they were made from, and where the furthest are furthest; none for older runs."""
    if not (found := summary.get("divergence")) or not found["ranking"]:
        return []
    names = [entry["artifact"].removeprefix("gguf-") for entry in found["ranking"]]
    signs = ["", *(" < " if entry["apart"] else " ≈ " for entry in found["ranking"][1:])]
    order = "".join(sign + name for sign, name in zip(signs, names, strict=True))
    furthest = found["ranking"][-1]["artifact"]
    rows = ", ".join(f"{row['id']} ({row[DIVERGENCE]:.3f})" for row in found["worst"][furthest])
    if found.get("ranked_by") == READING_DIVERGENCE:
        return [f"divergence of what is read (KL, nats a token): {order}; {furthest}'s answers most on rows {rows}"]
    return [f"divergence (KL, nats a token): {order}; {furthest} most on rows {rows}"]


def _table(summary: Summary) -> Table:
    columns = _columns(summary)
    table = Table("artifact", box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title, justify="left" if title == "verdict" else "right", no_wrap=title != "verdict")
    for artifact in summary["metrics"]:
        table.add_row(_name(artifact, summary), *(cell(artifact, summary) for cell in columns.values()))
    return table


def _columns(summary: Summary) -> dict[str, Cell]:
    """Title → cell; the metric with an interval is the one that verdicts and gate are about."""
    measured = {name for of in summary["metrics"].values() for name in of}
    about = METRICS[primary(measured)]
    shown = list(about.column)
    if "empty_rate" in about.beside and any(_is_some(of.get("empty_rate")) for of in summary["metrics"].values()):
        shown[-1] = "empty_rate"  # 80 columns hold no more
    nats = DIVERGENCE in measured
    if nats and len(shown) > 1 and "empty_rate" not in shown:
        shown.pop()
    known = [METRICS[name] for name in (*shown, *added(measured)) if name in measured or about.tasks]
    return {
        "n": lambda artifact, summary: str(summary["metrics"][artifact].get("n", "")),
        f"{about.title} (95 %)": _interval(about.name),
        **{metric.title: _value(metric.name, metric.digits) for metric in known},
        **{title: _value(name) for name, title in summary.get("own", {}).items()},
        METRICS[AGREEMENT].title: _value(AGREEMENT),
        **({METRICS[DIVERGENCE].title: _value(DIVERGENCE, METRICS[DIVERGENCE].digits)} if nats else {}),
        "size": _size,
        "verdict": _verdict,
    }


def _is_some(figure: Mapping[str, Any] | None) -> bool:
    return bool(figure and figure["value"])


def _value(metric: str, digits: int = 1) -> Cell:
    def cell(artifact: str, summary: Summary) -> str:
        figure = summary["metrics"][artifact].get(metric)
        return f"{figure['value']:.{digits}f}" if figure else ""

    return cell


def _interval(metric: str) -> Cell:
    def cell(artifact: str, summary: Summary) -> str:
        figure = summary["metrics"][artifact].get(metric)
        return figure_text(figure) if figure else ""

    return cell


def figure_text(figure: Mapping[str, Any]) -> str:
    """A value with its interval, as `91.0 (85.0–96.0)`."""
    if figure["low"] is None:
        return f"{figure['value']:.4g}"
    return f"{figure['value']:.1f} ({figure['low']:.1f}–{figure['high']:.1f})"


def _name(artifact: str, summary: Summary) -> str:
    recommended = (summary.get("recommendation") or {}).get("artifact")
    return f"{artifact}*" if artifact == recommended else artifact


def _size(artifact: str, summary: Summary) -> str:
    size = summary.get("sizes", {}).get(artifact)
    return decimal(size) if size else ""


def _verdict(artifact: str, summary: Summary) -> str:
    if any(failure["artifact"] == artifact for failure in summary.get("failures", ())):
        return localised("fails gate")
    found = next((c["verdict"] for c in summary.get("comparisons", ()) if c["a"] == artifact), "")
    return localised(SHORT.get(found, found))
