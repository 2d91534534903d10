"""Start, stop and go on: the tool's own commands, as processes of their own that outlive the window."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.lib import layout, process
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import sha256_of, write_text
from orchestrator.runs.locks import stop as stop_worker
from orchestrator.spec.load import load_project
from orchestrator.ui.pages import Window, end_of

Json = dict[str, Any]

FOLDER = ".started"
"""Of the logs of what was started here; runs/ leaves out what begins with a dot."""
LOG = re.compile(r"\d{8}T\d{6}Z-(?:run|sweep)\.log")
WHAT = ("run", "sweep")
FIELDS = {
    "name": "Name",
    "model.base": "Base model",
    "data.train": "Training rows",
    "data.eval": "Held-out rows",
    "train.learning_rate": "Learning rate",
    "train.num_train_epochs": "Epochs",
    "train.lora_rank": "LoRA rank",
    "train.per_device_train_batch_size": "Batch size",
    "export.gguf": "GGUF files",
    "sweep.parameters": "Sweep over",
}
"""Key of the spec → its label in the form; every other key is written as KEY=VALUE."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A spec with changes that can run, not written yet."""

    spec: str
    changes: tuple[str, ...]
    text: str
    diff: str
    seen: str
    """The hash of the file that the changes were made to."""


def specs(project: Path) -> list[str]:
    """The specs of a project, by their path in it."""
    found = [project / layout.SPEC, *sorted(project.glob("specs/*.yaml"))]
    return [str(path.relative_to(project)) for path in found if path.is_file()]


def form(window: Window, spec: str) -> Json:
    """Key → what the file says now, as YAML in one line; '' for what it does not say."""
    from orchestrator.lib.render import yaml_scalar
    from orchestrator.spec.document import parse

    values = parse(_file(window, spec).read_text(encoding="utf-8")).value
    return {key: "" if (found := _at(values, key)) is None else _bare(yaml_scalar(found)) for key in FIELDS}


def edit(window: Window, spec: str, given: Mapping[str, str], more: str) -> Edit:
    """The spec with what the form says differently. Raises InputError with every problem."""
    file = _file(window, spec)
    before, text = form(window, spec), file.read_text(encoding="utf-8")
    said = {key: given[key].strip() for key in FIELDS if key in given}
    changed = [f"{key}={value}" for key, value in said.items() if value != before[key]]
    changes = (*changed, *filter(None, map(str.strip, more.splitlines())))
    made = load_project(file, changes).text
    lines = difflib.unified_diff(text.splitlines(), made.splitlines(), spec, f"{spec}, changed", lineterm="")
    return Edit(spec, changes, made, "\n".join(lines), sha256_of(text))


def begin(window: Window, what: str, spec: str, changes: Sequence[str], seen: str) -> str:
    """Write the changes into the spec and start a run or a sweep of it; returns the name of its log.

    Raises InputError, and writes nothing, when the file is not what the changes were shown for any more.
    """
    if what not in WHAT:
        raise InputError(f"{what!r} cannot be started", f"Choose from {', '.join(WHAT)}.")
    file = _file(window, spec)
    text = file.read_text(encoding="utf-8")
    if sha256_of(text) != seen:
        raise InputError(f"{spec} was changed meanwhile; nothing was written", "Look at the changes once more.")
    made = load_project(file, changes).text
    if made != text:
        write_text(file, made)
    return launch(window, what, file)


def launch(window: Window, what: str, spec: Path) -> str:
    """Start a command of ours that goes on when the window is closed; returns the name of its log."""
    name = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{what}.log"
    argv = (sys.executable, "-m", "orchestrator", what, str(spec), "--runs-dir", str(window.runs_dir))
    process.start_detached(process.Command(argv, window.project, window.runs_dir / FOLDER / name))
    return name


def go_on(window: Window, run: str) -> str:
    """Start an interrupted run again, from the spec that it keeps."""
    return launch(window, "run", window.run(run).folder / layout.SPEC)


def stop(window: Window, name: str) -> None:
    """Ask whoever works on a run or a sweep to end. Raises InputError when nobody does."""
    folder = window.folder(name)
    if not stop_worker(folder):
        raise InputError(f"nobody works on {name}", "It has ended already, or works on another machine.")


def started(window: Window) -> list[str]:
    """The names of the logs of what was started, the newest first."""
    found = sorted((path.name for path in (window.runs_dir / FOLDER).glob("*.log")), reverse=True)
    return [name for name in found if LOG.fullmatch(name)][:20]


def log(window: Window, name: str) -> str:
    """The end of what a started command printed."""
    if not LOG.fullmatch(name) or not (said := end_of(window.runs_dir / FOLDER / name)):
        return ""
    return said


def _file(window: Window, spec: str) -> Path:
    if spec not in specs(window.project):
        raise InputError(f"there is no spec {spec!r} here", f"There are: {', '.join(specs(window.project)) or 'none'}.")
    return window.project / spec


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _bare(text: str) -> str:
    """A text that needs no quotes in YAML without them."""
    inner = text[1:-1]
    return inner if text.startswith('"') and re.fullmatch(r"[A-Za-z][\w./:@-]*", inner) else text
