"""One page that opens from disk: of a run, of a sweep, or of some runs side by side."""

from __future__ import annotations

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


def write(folder: Path) -> Path:
    """Write the page of a run or a sweep into its folder, and clear what killed tools left of one; returns the page."""
    from orchestrator.report.page import page

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
    page, record = folder / layout.REPORT, folder / layout.RECORD
    return page.is_file() and page.stat().st_mtime_ns >= record.stat().st_mtime_ns


def write_comparison(compared: dict[str, Any], file: Path) -> None:
    """Write the page of some runs side by side."""
    from orchestrator.report.page import page

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


def find(runs_dir: Path, wanted: str | None) -> Path:
    """The folder of the run or sweep that `wanted` names, or of the newest run. Raises InputError without one."""
    sweeps = [file.parent for file in runs_dir.glob(f"*/{layout.SWEEP}") if wanted and wanted in file.parent.name]
    if wanted and (Path(wanted) / layout.SWEEP).is_file():
        return Path(wanted)
    if len(sweeps) > 1:
        raise InputError(f"{wanted!r} matches {len(sweeps)} sweeps", "Give more of the id.")
    return sweeps[0] if sweeps else store.find(runs_dir, wanted).folder
