"""How one training is started on many devices: what LLaMA-Factory's launcher reads in the environment, and DeepSpeed's
configuration. Which devices they are changes no result as long as a step sees as many rows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.step import Step
from orchestrator.spec.launching import ZERO, accumulation, processes
from orchestrator.spec.sections import Launch
from orchestrator.stages.base import Context

ALONE = {"FORCE_TORCHRUN": "0", "USE_RAY": "0", "NNODES": "1", "NODE_RANK": "0", "NPROC_PER_NODE": "1"}
"""One process, also where LLaMA-Factory would start one for each GPU."""
DEEPSPEED = "configs/deepspeed.json"


@dataclass(frozen=True, slots=True)
class Launched:
    """What a launch section adds to the training's step."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    one_device: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the same training on one device."""
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)


def launched(context: Context) -> Launched:
    """Everything a spec's launch section asks for; empty without one, so that LLaMA-Factory decides."""
    launch, train = context.spec.launch, context.spec.train
    if launch is None:
        return Launched()
    each = processes(launch, train, context.gpus)
    steps, devices = accumulation(launch, train, context.gpus), each * launch.nodes
    engine = {"deepspeed": DEEPSPEED} if launch.deepspeed else {"fsdp": launch.fsdp} if launch.fsdp else {}
    workers = {"ray_num_workers": each} if launch.ray else {}
    return Launched(
        arguments={"gradient_accumulation_steps": steps, **engine, **workers},
        one_device={"gradient_accumulation_steps": steps * devices, **engine},
        env=_environment(context, launch, each),
        files={DEEPSPEED: _deepspeed(context, launch.deepspeed)} if launch.deepspeed else {},
        # A checkpoint that is divided among devices can be gone on from by as many only.
        inputs={"devices": str(devices)} if launch.deepspeed or launch.fsdp else {},
    )


def single_process(context: Context) -> dict[str, str]:
    """The environment of a step that runs as one process beside a training on many devices."""
    return dict(ALONE) if context.spec.launch else {}


def spawns(context: Context, env: Mapping[str, str]) -> bool:
    """Whether `llamafactory-cli train` starts other processes: as told, or by itself where there are more GPUs."""
    return context.gpus > 1 or "1" in (env.get("FORCE_TORCHRUN"), env.get("USE_RAY"))


def _environment(context: Context, launch: Launch, each: int) -> dict[str, str]:
    """What llamafactory/launcher.py reads."""
    if launch.ray:
        return {"FORCE_TORCHRUN": "0", "USE_RAY": "1"}
    if each * launch.nodes == 1 and not (launch.deepspeed or launch.fsdp):
        return dict(ALONE)
    env = {**ALONE, "FORCE_TORCHRUN": "1", "NNODES": str(launch.nodes), "NPROC_PER_NODE": str(each)}
    if launch.master:
        env["MASTER_ADDR"], _, env["MASTER_PORT"] = launch.master.partition(":")
    if launch.min_nodes or launch.max_restarts:  # without an id, torchrun is started without these
        env |= {"RDZV_ID": context.spec.name, "MAX_RESTARTS": str(launch.max_restarts)}
        env |= {"MIN_NNODES": str(launch.min_nodes or launch.nodes), "MAX_NNODES": str(launch.nodes)}
    here = launch.nodes == 1 and not (launch.deepspeed or launch.fsdp)  # more nodes may have what this machine has not
    if context.spec.train.get("use_cpu") or (here and context.gpus == 0):
        # accelerate would name the device cpu:0, which torch loads no optimizer's checkpoint to.
        env |= {"ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": str(max(1, context.cores // each))}
    return env


def _deepspeed(context: Context, wanted: str) -> str:
    """DeepSpeed's configuration: one of ours, or the user's file."""
    if wanted not in ZERO:
        return (context.project / wanted).read_text(encoding="utf-8")
    stage, offload = ZERO[wanted]
    return context.render("deepspeed.json.j2", stage=stage, offload=offload)


def placed(step: Step, folder: Path) -> Step:
    """For Ray, whose workers may start anywhere: the step with arguments that name its paths from the root."""
    if step.env.get("USE_RAY") != "1":
        return step
    paths = {"dataset_dir": folder / layout.DATA, "output_dir": folder / layout.TRAINED}
    if DEEPSPEED in step.files:
        paths["deepspeed"] = folder / DEEPSPEED
    saved = layout.checkpoints(folder / layout.TRAINED)
    if whole := [checkpoint for checkpoint in saved if (checkpoint / "trainer_state.json").is_file()]:
        paths["resume_from_checkpoint"] = whole[-1]
    return replace(step, argv=(*step.argv, *(f"{key}={path.resolve()}" for key, path in paths.items())))


# ---- what a plan says


def batch(step: Step) -> dict[str, int]:
    """How the rows of one step of training are divided; empty where LLaMA-Factory decides."""
    if step.stage != "train" or "FORCE_TORCHRUN" not in step.env:
        return {}
    arguments = step.arguments
    parts = {
        "per_device": int(arguments["per_device_train_batch_size"]),
        "accumulation": int(arguments["gradient_accumulation_steps"]),
        "devices": int(arguments.get("ray_num_workers") or step.env["NPROC_PER_NODE"]),
        "nodes": int(step.env.get("NNODES", 1)),
    }
    return {"effective": math.prod(parts.values()), **parts}


def node_commands(step: Step) -> list[str]:
    """The command of each node, to be started in the run's folder; empty where one node does it all."""
    nodes = int(step.env.get("NNODES", 1))
    return [shlex.join([*_assignments(step, rank), *step.argv]) for rank in range(nodes)] if nodes > 1 else []


def _assignments(step: Step, rank: int) -> list[str]:
    return [f"{name}={value}" for name, value in {**step.env, "NODE_RANK": str(rank)}.items()]
