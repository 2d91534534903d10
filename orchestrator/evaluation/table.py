"""The table at the end of the chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_INTERVAL = ("accuracy", "rougeL")
_TITLES = {"accuracy": "accuracy (95 %)", "rougeL": "ROUGE-L (95 %)", "macro_f1": "F1", "rouge1": "R-1", "bleu": "BLEU"}


def artifact_table(summary: Mapping[str, Any], console: Console) -> None:
    """Prints a row for each artifact of a summary, then what its comparisons and its recommendation say.

    Without a terminal, or with NO_COLOR, the same text is plain; 80 columns are enough.
    """
    console.print(_table(summary))
    for comparison in summary.get("comparisons", ()):
        console.print(f"  {comparison['sentence']}", style="dim", highlight=False)
    for failure in summary.get("failures", ()):
        console.print(f"  gate: {failure['sentence']}", style="red", highlight=False)
    if recommendation := summary.get("recommendation"):
        console.print(f"* {recommendation['sentence']}", style="green", highlight=False)


def _table(summary: Mapping[str, Any]) -> Table:
    metrics = summary["metrics"]
    columns = _columns(metrics)
    table = Table("artifact", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for title in columns:
        table.add_column(title, justify="left" if title == "verdict" else "right", no_wrap=title != "verdict")
    for artifact in metrics:
        mark = "*" if artifact == (summary.get("recommendation") or {}).get("artifact") else ""
        table.add_row(artifact + mark, *(cell(artifact, summary) for cell in columns.values()))
    return table


def _columns(metrics: Mapping[str, Any]) -> dict[str, Callable[[str, Mapping[str, Any]], str]]:
    """Title → what stands in the cell of an artifact."""
    labels = any("accuracy" in of for of in metrics.values())
    names = ("accuracy", "macro_f1", "rouge1") if labels else ("rougeL", "rouge1", "bleu")
    return {
        "n": lambda artifact, summary: str(summary["metrics"][artifact].get("n", "")),
        **{_TITLES[name]: _figure(name) for name in names},
        "agrees": _figure("agreement_with_tuned"),
        "size": lambda artifact, summary: _size(summary.get("sizes", {}).get(artifact)),
        "verdict": _verdict,
    }


def _figure(name: str) -> Callable[[str, Mapping[str, Any]], str]:
    def cell(artifact: str, summary: Mapping[str, Any]) -> str:
        figure = summary["metrics"][artifact].get(name)
        if not figure:
            return ""
        interval = f" ({figure['low']:.1f}–{figure['high']:.1f})" if name in _INTERVAL else ""
        return f"{figure['value']:.1f}{interval}"

    return cell


def _size(size: int | None) -> str:
    return f"{size / 1e6:.0f} MB" if size else ""


def _verdict(artifact: str, summary: Mapping[str, Any]) -> str:
    return next((c["verdict"] for c in summary.get("comparisons", ()) if c["a"] == artifact), "")
