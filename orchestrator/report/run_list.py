"""Runs as a list for people: how old each is, its base model, what sets it apart, its size; trials as one sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from orchestrator.evaluation.metric import is_lower_better
from orchestrator.lib import layout
from orchestrator.lib.files import read_json
from orchestrator.lib.words import counted
from orchestrator.runs import compare
from orchestrator.runs.prune import freed
from orchestrator.runs.query import HEADS
from orchestrator.runs.store import Run
from orchestrator.spec.load import effective

Json = dict[str, Any]
NOT_TOLD = ("name", "export.ollama.name")
"""Keys that set runs apart and change nothing."""
LONGEST = 44
"""Characters of what sets a run apart; the comparison has all of it."""
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def settings(runs: Sequence[Run]) -> list[Json]:
    """Each run's spec with its defaults, its data and the versions of its packages, by dotted key.

    Of runs that kept no spec, the values of their configurations instead, so that both can be compared.
    """
    files = [run.folder / layout.SPEC for run in runs]
    if not all(file.is_file() for file in files):
        return [compare.settings(run) for run in runs]
    return [effective(file.read_text("utf-8")) | _made_from(run) for file, run in zip(files, runs, strict=True)]


def _made_from(run: Run) -> Json:
    """What else decides a result: what the data holds, and the versions of the packages."""
    lineage, packages = run.record.get("lineage", {}), run.record.get("environment", {}).get("packages", {})
    digests = {f"data.{part} (sha256)": str(lineage.get(f"{part}_data") or "")[:12] for part in ("train", "eval")}
    return digests | {f"package.{name}": version for name, version in packages.items()}


def told_apart(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each of some settings what is not the same in all of them, such as `learning_rate=0.001`."""
    keys = [key for key in dict.fromkeys(key for one in every for key in one) if key not in NOT_TOLD]
    apart = [key for key in keys if len({repr(one.get(key)) for one in every}) > 1]
    return [" ".join(f"{key.removeprefix('train.')}={_short(one.get(key))}" for key in apart) for one in every]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def age(created_at: str | None, now: datetime) -> str:
    """How long ago, in the largest unit that is full: `3 d`, `2 h`, `5 min`; '' for what is no time."""
    try:
        seconds = (now - datetime.fromisoformat(str(created_at))).total_seconds()
    except (ValueError, TypeError):
        return ""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), (1, "s"))
    return f"{max(0, int(seconds // size))} {unit}"


def folded(lines: Iterable[Json]) -> list[list[Json]]:
    """Lines of runs with the trials of a sweep together, where its newest one stands."""
    groups: dict[str, list[Json]] = {}
    for line in lines:
        groups.setdefault(line["sweep"] or line["id"], []).append(line)
    return list(groups.values())


def list_of_runs(runs_dir: Path, groups: Sequence[Sequence[Json]], now: datetime | None = None) -> list[Json]:
    """A line for each run, or for each sweep of several trials, as `folded` puts them."""
    now = now or datetime.now(UTC)
    names = [group[0]["name"] for group in groups]
    own = [_own_settings(runs_dir / group[0]["id"]) for group in groups]
    apart: dict[int, str] = {}
    for name in dict.fromkeys(names):
        places = [at for at, other in enumerate(names) if other == name and own[at] and len(groups[at]) == 1]
        apart |= dict(zip(places, told_apart([own[at] for at in places]), strict=True))
    return [
        _line(runs_dir, group, own[at], apart.get(at, ""), age(group[0]["created_at"], now))
        for at, group in enumerate(groups)
    ]


def _own_settings(folder: Path) -> Json:
    file = folder / layout.SPEC
    return effective(file.read_text("utf-8")) if file.is_file() else {}


def _line(runs_dir: Path, group: Sequence[Json], own: Json, apart: str, old: str) -> Json:
    first = group[0]
    figures = {key: _best(key, group) for key in first if key not in HEADS}
    head = {"id": first["id"], "age": old, "status": first["status"]}
    folders = [runs_dir / line["id"] for line in group]
    if len(group) > 1:
        sweep = runs_dir / first["sweep"]
        head |= {"id": sweep.name, "status": _status(sweep)}
        apart = counted(len(group), "trial")
        folders.append(sweep)
    apart = apart if len(apart) <= LONGEST else f"{apart[: LONGEST - 1]}…"
    base = str(own.get("model.base") or "").rpartition(":")[2].rpartition("/")[2]
    return {**head, "base": base, "differs": apart, "size": decimal(freed(folders)), **figures}


def _best(key: str, group: Sequence[Json]) -> Any:
    known = [line[key] for line in group if line[key] is not None]
    numbers = [value for value in known if isinstance(value, int | float)]
    if len(numbers) < len(known) or not known:
        return known[0] if len(group) == 1 and known else None
    return min(numbers) if is_lower_better(key.rpartition(".")[2]) else max(numbers)


def _status(sweep: Path) -> str:
    file = sweep / layout.SWEEP
    return str(read_json(file).get("status", "")) if file.is_file() else ""


def sweep_lines(page: Json, folder: Path) -> Iterator[str]:
    """The head of `runs show SWEEP`: what was swept, how far it is, and where its page is."""
    trials = page["trials"]
    yield f"{page['id']}  {page.get('status', 'running')}"
    searched = ", ".join(f"{key}: {value}" for key, value in page.get("parameters", {}).items())
    yield f"{counted(len(trials), 'trial')} of {page.get('total', len(trials))}, spec {page.get('spec')}; {searched}"
    if (folder / layout.REPORT).is_file():
        yield f"page: {folder.name}/{layout.REPORT}"
