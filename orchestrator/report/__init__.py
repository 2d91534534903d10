"""One page that opens from disk: of a run, of a sweep, or of some runs side by side.

Every value in it is escaped, and its policy runs no script but ours.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json, remove_leftovers, write_text
from orchestrator.lib.render import Renderer
from orchestrator.lib.secrecy import without_folders
from orchestrator.runs import store

if TYPE_CHECKING:
    from orchestrator.report.charts import Chart


REFRESH_SECONDS = 5
"""How often an open tab reads the page of a run again while it runs."""


def write(folder: Path) -> Path:
    """Write the page of a run or a sweep into its folder, and clear what killed tools left of one; returns the page."""
    renderer = Renderer(folder.resolve().parent.parent)
    if (folder / layout.SWEEP).is_file():
        from orchestrator.report.sweep_page import facts as sweep_facts

        text = page(renderer, "report_sweep.html.j2", **sweep_facts(folder, read_json(folder / layout.SWEEP)))
    else:
        from orchestrator.report.run_page import facts

        text = page(renderer, "report.html.j2", **facts(folder, store.load(folder).record))
    write_text(folder / layout.REPORT, text)
    remove_leftovers(folder, f".{layout.REPORT}.*.tmp")
    return folder / layout.REPORT


def is_current(folder: Path) -> bool:
    """Whether the page of a run was written after all that its record says."""
    file, record = folder / layout.REPORT, folder / layout.RECORD
    return file.is_file() and file.stat().st_mtime_ns >= record.stat().st_mtime_ns


def write_comparison(compared: dict[str, Any], file: Path) -> None:
    """Write the page of some runs side by side."""
    settings = [{**line, "values": [_sent(value) for value in line["values"]]} for line in compared["settings"]]
    compared = {**compared, "settings": settings}
    write_text(file, page(Renderer(Path.cwd()), "report_compare.html.j2", **compared, curve=loss_of_each(compared)))


def loss_of_each(compared: dict[str, Any]) -> Chart | None:
    """The losses of some runs in one chart."""
    from orchestrator.report.charts import Series, plot

    losses = enumerate(compared["losses"].items())
    looks = [Series(run, points, f"s{place % 8} d{place // 8 % 3}") for place, (run, points) in losses]
    return plot("Loss", "step", "loss", looks)


def _sent(value: Any) -> Any:
    return without_folders(value) if isinstance(value, str) else value


def page(renderer: Renderer, template: str, /, **values: Any) -> str:
    """The whole page as text; style and script stand in it, so that one file can be kept or sent."""
    from markupsafe import Markup
    from rich.filesize import decimal

    style, script = renderer("report.css"), renderer("report.js")
    return renderer(
        template,
        style=Markup(style),  # ours, from templates/  # nosec B704
        script=Markup(script),  # nosec B704
        policy=policy(style, script),
        refresh=REFRESH_SECONDS,
        decimal=decimal,
        **values,
    )


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which nothing is loaded, and only this style and this script count."""
    allowed = f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return f"default-src 'none'; {allowed}; img-src data:; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def find(runs_dir: Path, wanted: str | None) -> Path:
    """The folder of the run or sweep that `wanted` names, or of the newest run. Raises InputError without one."""
    sweeps = [file.parent for file in runs_dir.glob(f"*/{layout.SWEEP}") if wanted and wanted in file.parent.name]
    if wanted and (Path(wanted) / layout.SWEEP).is_file():
        return Path(wanted)
    if len(sweeps) > 1:
        raise InputError(f"{wanted!r} matches {len(sweeps)} sweeps", "Give more of the id.")
    return sweeps[0] if sweeps else store.find(runs_dir, wanted).folder
