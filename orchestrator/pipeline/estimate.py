"""The forecasts for a spec on this machine, beside what is free, in words and as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.lib.files import read_json
from orchestrator.machine import environment
from orchestrator.models import sources, speed
from orchestrator.models.memory import Forecast, MemoryInput, merge, predict, train
from orchestrator.models.shape import Model, read_model
from orchestrator.models.situation import Situation, barred, counted, devices, longest, with_loss
from orchestrator.pipeline.plan import Plan
from orchestrator.spec.launching import processes, zero_stage
from orchestrator.spec.sections import Launch, Spec

ABOUT = "docs/memory.md"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What is forecast, for rows of how many tokens, and what is free."""

    forecasts: tuple[Forecast, ...]
    tokens: int
    measured: bool
    """Whether `prepare` has counted the tokens; else they are as many as cutoff_len allows."""
    free: Mapping[str, int]
    """Bytes free now: `host` and, where there is one, `gpu`, of the fullest."""


@dataclass(frozen=True, slots=True)
class EstimateInput:
    """What to forecast for."""

    spec: Spec
    model: Path | None
    """The base model's folder; None while it is not on this machine."""
    run: Path | None = None
    """The run's folder, if there is one."""
    project: Path = Path()
    """What paths in the spec are relative to."""
    size: Model | None = None
    """The base model's size, where its folder holds no weights; by default they are measured."""


def of_plan(plan: Plan) -> MemoryEstimate | None:
    """For a plan, whose run may already know how long its rows are."""
    folder = Path(plan.of("train").step.arguments["model_name_or_path"])
    return memory_estimate(EstimateInput(plan.spec, folder, plan.run.folder if plan.run else None, plan.project))


def of_spec(spec: Spec, project: Path, runs_dir: Path | None = None) -> MemoryEstimate | None:
    """For a spec of which nothing has been planned."""
    return memory_estimate(EstimateInput(spec, sources.here(spec.model.base, project, runs_dir), None, project))


def memory_estimate(subject: EstimateInput) -> MemoryEstimate | None:
    """None where the model is not on this machine, or of an architecture whose configuration says it otherwise."""
    model = subject.size or (read_model(subject.model) if subject.model else None)
    if model is None:
        return None
    spec, rows = subject.spec, counted(subject.run)
    tokens = longest(spec.training, rows)
    chosen, answer = _as_started(subject, model, tokens)
    gpus = devices(chosen)
    everywhere = processes(spec.launch, chosen, gpus) * spec.launch.nodes if spec.launch and gpus else gpus
    zero = _zero(spec.launch, chosen, subject.project)
    setting = MemoryInput(chosen, tokens, spec.evaluate.max_new_tokens, everywhere, zero, answer)
    alone = replace(setting, devices=min(gpus, 1), zero=0) if spec.launch else setting
    free = {"host": environment.free_main_memory()} | ({"gpu": environment.free_memory()} if gpus else {})
    return MemoryEstimate((train(model, setting), predict(model, alone), merge(model)), tokens, bool(rows), free)


def _as_started(subject: EstimateInput, model: Model, tokens: int) -> tuple[dict[str, Any], int | None]:
    """The arguments with what `speed: auto` would choose; and the most tokens of a row that logits are computed at,
    None for all."""
    import yaml

    chosen = subject.spec.training
    if subject.spec.speed != "auto":
        return chosen, None
    now = _situation(subject, model, chosen, tokens)
    picked = speed.chosen([*speed.for_training(now), *speed.for_predicting(now)])
    theirs = {name: yaml.safe_load(value) for name, value in picked.items() if name not in speed.OWN}
    return chosen | theirs, now.answer if speed.LOGITS in picked else None


def _situation(subject: EstimateInput, model: Model, chosen: dict[str, Any], tokens: int) -> Situation:
    """What `speed: auto` will look at when the spec's training and predictions start."""
    spec, folder, rows = subject.spec, subject.model, counted(subject.run)
    assert folder is not None
    many = bool(spec.launch) or devices(chosen) > 1
    return Situation(
        arguments=chosen
        | {
            "max_new_tokens": spec.evaluate.max_new_tokens,
            "trust_remote_code": spec.model.trust_remote_code,
        },
        model=model,
        longest=tokens,
        free=environment.free_memory(),
        answer=with_loss(chosen, rows),
        mean=float(rows.get("mean", 0.0)),
        unset=() if spec.launch or set(speed.MICRO) & set(spec.train) else speed.MICRO,
        barred="several processes" if many else barred(folder),
    )


def lines(found: MemoryEstimate | None) -> list[str]:
    """A line of totals, one of how they were computed, and one for each that is too large for this machine."""
    if found is None:
        return ["memory: no forecast before the base model is here, or for its architecture"]
    rows = f"rows of {found.tokens} tokens" + (
        "" if found.measured else " (cutoff_len; fewer once `prepare` has counted)"
    )
    told = [f"memory: {_totals(found)}", f"        computed for {rows}; see {ABOUT}"]
    for forecast in found.forecasts:
        for place, needed in _places(forecast).items():
            if needed > found.free[place]:
                told.append(
                    f"warning: {forecast.stage} may not fit: {_gib(needed)} of {_gib(found.free[place])} GiB free; "
                    f"lower {forecast.lower}"
                )
    return told


def to_json(found: MemoryEstimate | None) -> dict[str, Any] | None:
    """All parts, in bytes."""
    return asdict(found) if found else None


def _totals(found: MemoryEstimate) -> str:
    place = "gpu" if "gpu" in found.free else "host"
    totals = []
    for forecast in found.forecasts:
        parts = forecast.gpu or forecast.host
        largest = max((name for name in parts if name not in ("process", "CUDA")), key=lambda name: parts[name])
        where = " in main memory" if place == "gpu" and not forecast.gpu else ""
        totals.append(f"{forecast.stage} {_gib(sum(parts.values()))} GiB{where} ({largest} {_gib(parts[largest])})")
    return f"{', '.join(totals)}; {_gib(found.free[place])} free"


def _places(forecast: Forecast) -> dict[str, int]:
    return {place: sum(parts.values()) for place, parts in (("gpu", forecast.gpu), ("host", forecast.host)) if parts}


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}" if size < 100 * 2**30 else f"{size / 2**30:.0f}"


def _zero(launch: Launch | None, chosen: Mapping[str, Any], project: Path) -> int:
    """The ZeRO stage, or the one that divides as much as FSDP does; 0 where nothing is divided, or nothing known."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        if launch:
            return 3 if launch.fsdp else zero_stage(launch, project) or 0
        return int(read_json(Path(chosen["deepspeed"]))["zero_optimization"]["stage"])
    return 0
