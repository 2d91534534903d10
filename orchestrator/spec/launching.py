"""One training over many devices: what goes together, and how the rows of a step are divided.

The rules are those of llamafactory/hparams/parser.py and llamafactory/train/tuner.py, of transformers and of torchrun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json
from orchestrator.spec.document import Finding
from orchestrator.spec.sections import Launch, with_defaults

ZERO = {"z0": (0, False), "z2": (2, False), "z3": (3, False), "z2-offload": (2, True), "z3-offload": (3, True)}
"""Name → DeepSpeed's ZeRO stage, and whether main memory holds what the GPUs do not need at the moment."""


class Rule(NamedTuple):
    """It is asked of a section that sets the key; the arguments include all defaults."""

    key: str
    message: str
    broken: Callable[[Launch, Mapping[str, Any]], bool]


def processes(launch: Launch, train: Mapping[str, Any], gpus: int) -> int:
    """The processes on each node, `auto` resolved for a machine with so many GPUs."""
    if launch.ray:
        return launch.ray.workers
    return (1 if train.get("use_cpu") else max(1, gpus)) if launch.devices == "auto" else launch.devices


def accumulation(launch: Launch, train: Mapping[str, Any], gpus: int) -> int:
    """How many batches each process adds up before a step. Raises InputError where no whole number holds the batch."""
    chosen = with_defaults(train)
    wanted, each = launch.global_batch_size, chosen["per_device_train_batch_size"]
    if wanted is None:
        return int(chosen["gradient_accumulation_steps"])
    devices = processes(launch, train, gpus) * launch.nodes
    if problem := indivisible(wanted, each, devices):
        raise InputError(f"launch.global_batch_size: {problem}", "Or change train.per_device_train_batch_size.")
    return int(wanted // (each * devices))


def indivisible(wanted: int, each: int, devices: int) -> str:
    """What to say when a global batch is no multiple of the rows that all devices take at a time, or ''."""
    at_once = each * devices
    if wanted % at_once == 0:
        return ""
    below = wanted // at_once * at_once
    nearest = " or ".join(str(choice) for choice in (below, below + at_once) if choice)
    return f"{wanted} is no multiple of {each} per device × {devices} devices = {at_once}; the nearest: {nearest}"


def zero_stage(launch: Launch, project: Path) -> int | None:
    """DeepSpeed's ZeRO stage, or None without DeepSpeed. Raises what reading a file of the user's raises."""
    if launch.deepspeed is None:
        return None
    if launch.deepspeed in ZERO:
        return ZERO[launch.deepspeed][0]
    return int(read_json(project / launch.deepspeed).get("zero_optimization", {}).get("stage", 0))


def check_launch(launch: Launch, train: Mapping[str, Any], project: Path) -> Iterator[Finding]:
    """Everything wrong with a launch section beside sound training arguments."""
    from orchestrator.spec.training import defaults

    try:
        zero = zero_stage(launch, project)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "no DeepSpeed configuration in JSON"
        yield Finding(("launch", "deepspeed"), f"{launch.deepspeed!r}: {reason}; known are {', '.join(ZERO)}")
        return
    chosen = defaults() | dict(train)
    rules = (*RULES, *_sharded("deepspeed" if zero == 3 else "fsdp"), *(ZERO_3 if zero == 3 else ()))
    for rule in rules:
        if getattr(launch, rule.key) and rule.broken(launch, chosen):
            yield Finding(("launch", rule.key), rule.message)
    for key in ("deepspeed", "fsdp"):
        if key in train:
            yield Finding(("train", key), f"say it as launch.{key}, beside the rest of the launch section")
    yield from _check_batch(launch, train)


def _check_batch(launch: Launch, train: Mapping[str, Any]) -> Iterator[Finding]:
    if launch.global_batch_size is None:
        return
    if "gradient_accumulation_steps" in train:
        yield Finding(("train", "gradient_accumulation_steps"), "follows from launch.global_batch_size; leave it out")
    if launch.devices == "auto" and not launch.ray:  # the plan sees how many there are
        return
    each = with_defaults(train)["per_device_train_batch_size"]
    if problem := indivisible(launch.global_batch_size, each, processes(launch, train, 0) * launch.nodes):
        yield Finding(("launch", "global_batch_size"), problem)


def _with(argument: str) -> Callable[[Launch, Mapping[str, Any]], bool]:
    return lambda launch, chosen: bool(chosen[argument])


def _without_torchrun(launch: Launch, chosen: Mapping[str, Any]) -> bool:
    return launch.nodes > 1 or launch.devices != "auto" or bool(launch.max_restarts or launch.min_nodes)


def _unshardable(launch: Launch, chosen: Mapping[str, Any]) -> bool:
    """LLaMA-Factory shards what bitsandbytes has quantised to 4 bits, and nothing else that is quantised."""
    bits, method = chosen["quantization_bit"], chosen["quantization_method"]
    return bits is not None and (bits, method) != (4, "bnb")


_NOT_DIVIDED = (None, "z0", "z2", "z2-offload")
RULES = (
    Rule("nodes", "needs master: HOST:PORT, where node 0 listens", lambda a, _: a.nodes > 1 and not a.master),
    Rule("min_nodes", "must be at most nodes", lambda a, _: (a.min_nodes or 0) > a.nodes),
    Rule("min_nodes", "cannot hold global_batch_size: nodes may come and go", lambda a, _: bool(a.global_batch_size)),
    Rule("min_nodes", "cannot be combined with deepspeed, whose checkpoints need as many devices again",
         lambda a, _: bool(a.deepspeed)),
    Rule("deepspeed", "cannot be combined with fsdp; keep one", lambda a, _: bool(a.fsdp)),
    Rule("deepspeed", "does not work with use_galore", _with("use_galore")),
    Rule("deepspeed", "does not work with use_apollo", _with("use_apollo")),
    Rule("fsdp", "works on GPUs only; leave use_cpu out", _with("use_cpu")),
    Rule("ray", "places the processes itself; leave devices, nodes, min_nodes and max_restarts out", _without_torchrun),
    Rule("ray", "works on GPUs only, in LLaMA-Factory; leave use_cpu out", _with("use_cpu")),
    Rule("ray", "works with neither dpo nor kto, whose trainers must be started by torchrun",
         lambda _, chosen: chosen["stage"] in ("dpo", "kto")),
    Rule("devices", "of more than one need deepspeed: z3 with use_badam",
         lambda a, chosen: bool(chosen["use_badam"]) and a.devices not in (1, "auto") and a.deepspeed in _NOT_DIVIDED),
)  # fmt: skip
ZERO_3 = (
    Rule("deepspeed", "ZeRO-3 does not work with use_kt", _with("use_kt")),
    Rule("deepspeed", "ZeRO-3 does not work with pissa_init", _with("pissa_init")),
    Rule("deepspeed", "ZeRO-3 does not work with pure_bf16", _with("pure_bf16")),
)


def _sharded(key: str) -> tuple[Rule, ...]:
    """What no engine does that divides the weights themselves among devices."""
    return (
        Rule(key, "dividing the weights does not work with use_unsloth", _with("use_unsloth")),
        Rule(key, "dividing the weights works with quantization_bit 4 of bnb only", _unshardable),
    )
