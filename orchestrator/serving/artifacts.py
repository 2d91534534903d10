"""Which of a run's artifacts is meant, and whether the gate let it pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import definition
from orchestrator.evaluation.calls import CallReader
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, InputError, MissingError
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.runs.store import Run
from orchestrator.serving.proven import require_proven

ADAPTER = "adapter"
LLAMA_FACTORY = ("base", "tuned")
"""Artifacts that LLaMA-Factory itself answers with; all others are GGUF files."""


def ggufs(run: Run) -> dict[str, Path]:
    """Kind (f16, q4_k_m, …, adapter) → file, of the GGUFs that the run holds."""
    prefix = f"{run.record['name']}-"
    found = sorted((run.folder / "export").glob(f"{prefix}*.gguf"))
    return {path.stem.removeprefix(prefix): path for path in found if path.stem != f"{prefix}base"}


def choose(run: Run, wanted: str | None, force: bool = False) -> str:
    """The artifact's plain name: the one asked for, else the gate's recommendation, else of the GGUFs that passed the
    gate the largest, which loses the least, else the tuned model.

    Raises InputError for one that nobody knows, MissingError for one that was not made yet and, unless forced,
    GateError for one that is not what was proven.
    """
    if wanted is None:
        require_proven(run, None, force)
    name = _named(run, wanted)
    require_proven(run, name, force)
    return name


def _named(run: Run, wanted: str | None) -> str:
    there = ggufs(run)
    if wanted is None:
        passed = {kind: path for kind, path in there.items() if kind != ADAPTER and not violations(run, kind)}
        return recommended(run) or max(passed, key=lambda kind: passed[kind].stat().st_size, default="tuned")
    name = wanted.removeprefix("gguf-").lower()
    if name in there or (name in LLAMA_FACTORY and run.stage("train").get("status") == "completed"):
        return name
    offer = f"This run has: {', '.join([*LLAMA_FACTORY, *there])}."
    if name in LLAMA_FACTORY or f"ask-{name}" in run.record["stages"]:
        raise MissingError(f"run {run.id} has no {wanted!r} yet", f"{offer} `orchestrator export` makes the others.")
    raise InputError(f"no artifact {wanted!r}", offer)


def choose_gguf(run: Run, wanted: str | None, force: bool) -> str:
    """`choose` among the GGUFs; raises GateError for one that the gate refused, too, unless forced."""
    kind = choose(run, wanted, force)
    if kind in LLAMA_FACTORY:
        refused = [sentence for name in ggufs(run) for sentence in violations(run, name)]
        if refused:
            raise GateError(
                "\n".join(refused), "No GGUF passed the quality gate; --force with --artifact ships one anyway."
            )
        raise MissingError(f"run {run.id} has no GGUF to ship", "Make one with `orchestrator export`.")
    if not force and (refused := violations(run, kind)):
        raise GateError("\n".join(refused), "Choose another with --artifact, or ship it anyway with --force.")
    return kind


def violations(run: Run, kind: str) -> list[str]:
    """What the gate said against a GGUF; empty when it passed."""
    from orchestrator.evaluation.learnt import BETTER_THAN

    if run.stage("judge").get("status") != "completed":
        return [f"{kind}: the quality gate has not looked at this file yet"]
    failures = _verdict(run)["failures"]
    its = [failure for failure in failures if failure["artifact"] in (kind, f"gguf-{kind}")]
    untaught = [failure for failure in failures if failure.get("what") == BETTER_THAN]  # no file of it is any better
    return [failure["sentence"] for failure in (its or untaught)]


def recommended(run: Run) -> str | None:
    """The kind of GGUF that the gate recommends, as evaluation/recommend.py chooses; None for none."""
    if run.stage("judge").get("status") != "completed":
        return None
    try:
        recommendation = _verdict(run).get("recommendation")
    except (MissingError, GateError):  # gone or damaged, which `choose` and the page say
        return None
    return str(recommendation["artifact"]).removeprefix("gguf-") if recommendation else None


def answers(run: Run, kind: str) -> Path:
    """The predictions file of a GGUF. Raises MissingError for one that was never asked."""
    file = run.folder / layout.predictions(f"gguf-{kind}")
    if not file.is_file():
        raise MissingError(f"no {file.name}: this GGUF was not asked yet", "Run `orchestrator export` first.")
    return file


def serving(run: Run) -> Mapping[str, Any]:
    """How the run was trained to be served: template, thinking, system, stop words."""
    file = run.folder / layout.SERVING
    if not file.is_file():
        raise MissingError(f"run {run.id} has no {layout.SERVING}", "Train it first with `orchestrator train`.")
    found: Mapping[str, Any] = read_json(file)
    return found


def thinking(run: Run) -> tuple[bool | None, tuple[str, str]]:
    """Whether the run was trained to think, and the words around a thought; None where its template cannot."""
    trained = serving(run)
    shape = definition(trained["template"])
    return (bool(trained["thinking"]) if shape.reasons else None), shape.thought_words


def call_reader(run: Run) -> CallReader | None:
    """Reads and writes the calls of a run that was trained with tools; None for any other."""
    trained = serving(run)
    return CallReader(trained["template"]) if trained.get("tools") else None


def tools_of(run: Run) -> list[dict[str, Any]]:
    """The tools that the held-out rows of a run offer, each name once; none where it was trained without."""
    file = run.folder / layout.PROMPTS
    rows = read_json_lines(file) if serving(run).get("tools") and file.is_file() else []
    return list({tool["function"]["name"]: tool for row in rows for tool in row.get("tools", ())}.values())


def _verdict(run: Run) -> dict[str, Any]:
    file = run.folder / layout.summary("judge")
    try:
        found: dict[str, Any] = read_json(file)
    except FileNotFoundError:
        raise MissingError(f"run {run.id} has no {file.name}", "`orchestrator export` makes it again.") from None
    except ValueError as error:
        what = f"{file.name} of run {run.id} is no verdict: {error}"
        raise GateError(what, "`orchestrator export` makes it again.") from None
    return found
