"""What a spec's training needs beyond what is always installed: trackers, optimisers, quantisers, a GPU.

LLaMA-Factory and transformers find out when the model is loaded or the trainer is built, some only after minutes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.lib.errors import MissingError
from orchestrator.machine import environment

TRACKERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "trackio": ("trackio",),
    "comet_ml": ("comet_ml",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "neptune": ("neptune",),
}
"""Value of `report_to` → packages of which one must be there: INTEGRATION_TO_CALLBACK of transformers 5."""

ARGUMENTS: Mapping[str, str] = {
    "deepspeed": "deepspeed",
    "use_unsloth": "unsloth",
    "enable_liger_kernel": "liger_kernel",
    "use_galore": "galore_torch",
    "use_apollo": "apollo_torch",
    "use_badam": "badam",
    "use_adam_mini": "adam_mini",
    "use_swanlab": "swanlab",
}
"""Argument → package: `_check_extra_dependencies` in llamafactory/hparams/parser.py."""

QUANTISERS: Mapping[str, str] = {"bnb": "bitsandbytes", "hqq": "hqq", "eetq": "eetq"}
"""`quantization_method` → package: those that LLaMA-Factory can quantise a base model with while it loads it."""

NEEDS_GPU = ("bnb", "eetq")
ENGINES = ("deepspeed", "ray")
"""Keys of the launch section that are the names of packages."""
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Need:
    """A package, or one of several, that an argument asks for."""

    key: str
    """The key of the spec with its value, as in `train.report_to: wandb`."""
    packages: tuple[str, ...]

    @property
    def package(self) -> str | None:
        """The one that is installed."""
        return next(filter(_is_installed, self.packages), None)


@dataclass(frozen=True, slots=True)
class Missing:
    """What is missing, and how to fix it."""

    message: str
    fix: str


def needs(training: Mapping[str, Any], launch: Mapping[str, Any] = NOTHING) -> Iterator[Need]:
    """The packages that training arguments and a launch section ask for."""
    for tracker in trackers(training):
        yield Need(f"train.report_to: {tracker}", TRACKERS.get(tracker, ()))
    for key, package in ARGUMENTS.items():
        if training.get(key):
            yield Need(f"train.{key}", (package,))
    if method := _quantiser(training):
        yield Need(f"train.quantization_bit: {training['quantization_bit']}", (QUANTISERS[method],))
    for engine in ENGINES:
        if launch.get(engine):
            yield Need(f"launch.{engine}", (engine,))


def missing(training: Mapping[str, Any], launch: Mapping[str, Any] = NOTHING) -> list[Missing]:
    """What of that this machine lacks."""
    found = [
        Missing(
            f"{need.key} needs {need.packages[0]}, which is not installed",
            f"pip install {need.packages[0].replace('_', '-')}",
        )
        for need in needs(training, launch)
        if need.packages and not need.package
    ]
    devices, there = launch.get("devices", 0), len(environment.gpus())
    if devices != "auto" and 0 < there < devices and not training.get("use_cpu"):
        found.append(
            Missing(f"launch.devices: {devices}, and this machine has {there}", f"Set it to {there}, or to auto")
        )
    if _quantiser(training) in NEEDS_GPU and (training.get("use_cpu") or not environment.gpus()):
        message = f"train.quantization_bit: {training['quantization_bit']} needs an NVIDIA GPU"
        fix = "Leave quantization_bit out, or quantise with quantization_method: hqq"
        found.append(Missing(f"{message}, and {'use_cpu is set' if training.get('use_cpu') else 'there is none'}", fix))
    return found


def require(training: Mapping[str, Any], launch: Mapping[str, Any] = NOTHING) -> None:
    """Raise MissingError, naming all of it, when something is lacking."""
    if found := missing(training, launch):
        raise MissingError("\n".join(one.message for one in found), "; ".join(one.fix for one in found) + ".")


def trackers(training: Mapping[str, Any]) -> list[str]:
    """The trackers that a training reports to."""
    chosen = training.get("report_to") or ()
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    return [name for name in names if name not in ("none", "all")]


def versions(training: Mapping[str, Any], launch: Mapping[str, Any] = NOTHING) -> dict[str, str]:
    """The versions of the packages that a training uses beyond the usual ones."""
    used = [need.package for need in needs(training, launch)]
    return {package: version for package in used if package and (version := environment.version(package))}


def _quantiser(training: Mapping[str, Any]) -> str | None:
    method = str(training.get("quantization_method", "bnb"))
    return method if training.get("quantization_bit") and method in QUANTISERS else None


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a folder of that name, such as wandb's own, has none
