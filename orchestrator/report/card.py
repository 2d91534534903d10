"""The proof card: one picture of what a run measured and what it ships, for a README or a model card.

The same shapes become SVG by a template and PNG by matplotlib, which LLaMA-Factory brings.
"""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from orchestrator.evaluation.learnt import UNTRAINED
from orchestrator.evaluation.metric import METRICS, primary
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, InputError
from orchestrator.lib.files import read_json, temporary_beside, write_text
from orchestrator.lib.render import Renderer
from orchestrator.lib.secrecy import without_folders
from orchestrator.report.summary import comparison, told
from orchestrator.runs import proof
from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

WIDTH, HEIGHT = 880, 440
INK, SOFT, LINE, WASH, ACCENT, GOOD, BAD = "#16191f", "#4c5563", "#d8dde4", "#eef1f5", "#1f5fbf", "#0b6b3a", "#a81b1b"
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS")
"""Of a PNG; one of the later ones draws Chinese where the machine has it. An SVG takes the reader's own."""
BAR, BAR_WIDTH = 300, 330
"""Where the bars begin, and the length of 100 %."""


class Rect(NamedTuple):
    """A filled rectangle, in pixels from the upper left."""

    x: float
    y: float
    width: float
    height: float
    fill: str


class Words(NamedTuple):
    """A line of text; x and y are where its base line begins."""

    x: float
    y: float
    text: str
    size: float = 15
    fill: str = INK
    weight: Literal["normal", "bold"] = "normal"
    mono: bool = False


Shape = Rect | Words


def write(run: Run, file: Path) -> Path:
    """Write the card of a run that is as it was recorded, as .svg or .png by the file's name; returns the file.

    Raises InputError for another kind of file or a run without figures, GateError for a run that was changed.
    """
    if file.suffix not in (".svg", ".png"):
        raise InputError(f"a card cannot be written as {file.name!r}", "Name a file that ends with .svg or .png.")
    drawn = list(shapes(run, _measured(run)))
    if file.suffix == ".png":
        _write_png(drawn, file)
    else:
        rects, lines = ([one for one in drawn if isinstance(one, kind)] for kind in (Rect, Words))
        about = {"width": WIDTH, "height": HEIGHT, "title": f"{run.record['name']}: run {run.id}"}
        write_text(file, Renderer(run.folder.parent.parent)("card.svg.j2", **about, rects=rects, lines=lines))
    return file


def _measured(run: Run) -> Json:
    """The figures of a run that is as it was recorded."""
    summary = summaries(run.folder)
    if "tuned" not in summary.get("metrics", {}):
        raise InputError(f"nothing was measured in run {run.id}", "Make a run that is, with `orchestrator run`.")
    if found := proof.damaged(run):
        raise GateError(f"run {run.id} is not as recorded: {found[0]}", "`orchestrator verify` says what to do.")
    return summary


def shapes(run: Run, summary: Json) -> Iterator[Shape]:
    """Everything on the card."""
    chosen = summary.get("recommendation") or {}
    shipped = str(chosen.get("artifact", ""))
    yield Rect(0, 0, WIDTH, HEIGHT, "#ffffff")
    yield Rect(0, 0, 10, HEIGHT, GOOD if shipped else SOFT)
    yield Words(40, 58, cut(str(run.record["name"]), 30), 28, weight="bold")
    yield Words(40, 86, cut(_about(run, summary), 92), 15, SOFT)
    yield from _figures(summary, shipped)
    yield Rect(40, 282, WIDTH - 80, 1, LINE)
    proofs = list(_proofs(run, summary, shipped))
    pitch = min(26, 66 / max(1, len(proofs) - 1))
    for place, (name, text, fill) in enumerate(proofs):
        yield Words(40, 308 + pitch * place, name, 15, SOFT)
        yield Words(200, 308 + pitch * place, cut(text, 76), 15, fill, "bold" if place == 0 else "normal")
    yield Rect(40, HEIGHT - 52, WIDTH - 80, 32, WASH)
    yield Words(54, HEIGHT - 31, cut(f"orchestrator verify {run.id}", 90), 14, mono=True)


def baseline(metrics: Json, metric: str) -> tuple[str, Json] | None:
    """Name and figure of the best that takes no training: the base model, told the labels or not, or always the most
    frequent label."""
    known = {"base model": metrics.get("base", {}).get(metric)}
    known["base model, told labels"] = metrics.get("base-prompted", {}).get(metric)
    if metric == "accuracy":
        known["most frequent label"] = metrics["tuned"].get("majority_baseline")
    there = {name: figure for name, figure in known.items() if figure}
    best = min if not METRICS[metric].higher_is_better else max
    return best(there.items(), key=lambda pair: pair[1]["value"]) if there else None


def cut(text: str, width: int) -> str:
    """The text in at most so many columns; a Chinese character takes two."""
    taken = 0
    for place, character in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if taken > width:
            return f"{text[: max(0, place - 1)]}…"
    return text


def _about(run: Run, summary: Json) -> str:
    detail = summary.get("detail", {}).get("tuned", {})
    labels = f", {len(detail['labels'])} labels" if detail.get("labels") else ""
    base = (run.record["lineage"].get("base_model") or {}).get("name", "")
    fine = f" · fine-tuned from {without_folders(str(base))}" if base else ""
    return f"{detail.get('task', 'trained model')}{labels}{fine}"


def _figures(summary: Json, shipped: str) -> Iterator[Shape]:
    metrics = summary["metrics"]
    metric = primary(metrics["tuned"])
    lines = [("tuned model", metrics["tuned"][metric])]
    if best := baseline(metrics, metric):
        lines.insert(0, best)
    if metric in metrics.get(shipped, {}):
        lines.append((f"{shipped}, shipped", metrics[shipped][metric]))
    rows = metrics["tuned"]["n"]
    yield Words(40, 126, f"{METRICS[metric].title} on {rows:,} held-out rows, with 95 % intervals", 16, weight="bold")
    for place, (name, figure) in enumerate(lines):
        y, last = 150 + 38 * place, name.endswith("shipped")
        yield Words(40, y + 16, cut(name, 30), 15, weight="bold" if last else "normal")
        if METRICS[metric].tasks:  # a percentage
            yield from _bar(figure, y, GOOD if last else ACCENT)
        interval = f" ({figure['low']:.1f}–{figure['high']:.1f})" if figure.get("low") is not None else ""
        yield Words(BAR + BAR_WIDTH + 20, y + 16, f"{figure['value']:.1f}{interval}", 16, weight="bold")


def _bar(figure: Json, y: float, colour: str) -> Iterator[Rect]:
    along = BAR_WIDTH / 100
    yield Rect(BAR, y, BAR_WIDTH, 22, WASH)
    yield Rect(BAR, y + 4, max(1, figure["value"] * along), 14, colour)
    yield Rect(BAR + figure["low"] * along, y + 10, max(1, (figure["high"] - figure["low"]) * along), 2, INK)


def _proofs(run: Run, summary: Json, shipped: str) -> Iterator[tuple[str, str, str]]:
    """Name, text and colour of each line: the shipped file, what its tokens and answers are, what was learnt from."""
    from rich.filesize import decimal

    if shipped:
        path = layout.gguf(run.record["name"], shipped.removeprefix("gguf-"))
        digest = proof.recorded(run).get(path, {}).get("sha256", "")
        size = decimal(summary["recommendation"]["bytes"])
        yield "ships", f"{Path(path).name} · {size}{f' · sha256 {digest[:12]}…' if digest else ''}", GOOD
        yield from _tokens(run, summary, shipped)
    elif summary.get("failures"):
        yield "ships", "nothing: no file passes the quality gate", BAD
    else:
        yield "ships", "no file was made yet", SOFT
    if against := comparison(summary, "tuned"):
        is_ = "shows " if against["verdict"] == "cannot tell" else "is "
        words = UNTRAINED.get(against["b"], against["b"])
        yield "same rows", f"the tuned model {is_}{told(against['verdict'])} {words}", INK
    if general := summary.get("general"):
        yield "general ability", _general(general), BAD if general["verdict"] == "damaged" else INK


def _general(found: Json) -> str:
    """The verdict, and what a reader can picture of it."""
    if "says_it" not in found:
        return str(found["verdict"])
    says, of = found["says_it"], found["prompts"]
    return f"{found['verdict']}: gives {says['tuned']} of {of} general answers word for word, base {says['base']}"


def _tokens(run: Run, summary: Json, shipped: str) -> Iterator[tuple[str, str, str]]:
    file = run.folder / layout.parity(shipped)
    found = read_json(file) if file.is_file() else {}
    if found.get("compared"):
        equal, of = found["equal_prompts"], found["compared"]
        agrees = summary["metrics"][shipped].get("agreement_with_tuned")
        same = f"; {agrees['value']:.0f} % of answers as the tuned model" if agrees else ""
        yield "tokens", f"equal in {equal:,} of {of:,} prompts{same}", GOOD if equal == of else BAD


def _write_png(drawn: list[Shape], file: Path) -> None:
    picture, temporary = _picture(drawn), temporary_beside(file)
    try:
        with warnings.catch_warnings(record=True) as said:
            picture.savefig(temporary, format="png")
        if any("missing from font" in str(one.message) for one in said):
            logging.getLogger(__name__).warning("no font here has every character of the card; card.svg needs none")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _picture(drawn: list[Shape]) -> Figure:
    from matplotlib import font_manager
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    known = {font.name for font in font_manager.fontManager.ttflist}
    families = {True: ["DejaVu Sans Mono"], False: [name for name in FONTS if name in known]}
    picture = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=200)
    axes = picture.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()
    for one in drawn:
        if isinstance(one, Rect):
            axes.add_patch(Rectangle((one.x, one.y), one.width, one.height, color=one.fill, linewidth=0))
        else:
            look: dict[str, Any] = {"fontsize": one.size * 0.72, "fontweight": one.weight, "family": families[one.mono]}
            axes.text(one.x, one.y, one.text, color=one.fill, parse_math=False, **look)
    return picture
