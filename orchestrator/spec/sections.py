"""The sections of spec.yaml as frozen types, with their defaults; a field's description is the reference's text."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from orchestrator.executors import EXECUTORS
from orchestrator.executors.base import Wanted
from orchestrator.executors.ray import Ray
from orchestrator.executors.slurm import Slurm
from orchestrator.lib.section import Section
from orchestrator.lib.training_kinds import TRAINING_KINDS, TrainingKind
from orchestrator.spec.export import Export

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]


def _known_executor(name: str) -> str:
    if name not in EXECUTORS:
        raise ValueError(f"must be one of {', '.join(EXECUTORS)}")
    return name


Executor = Annotated[str, AfterValidator(_known_executor)]
"""Where trials run: a name of orchestrator.executors.EXECUTORS."""


class Model(Section):
    """The model that is trained."""

    base: str = Field(
        "builtin:smollm2-135m-instruct",
        description="`builtin:NAME`, `hf:ORG/NAME[@REVISION]`, `modelscope:ORG/NAME`, `run:ID[@adapter]`, or a folder.",
    )
    template: str = Field(
        "auto",
        description="A LLaMA-Factory template, or `auto`: the one known for the base model. `gemma+qwen` is gemma's, "
        "with tools and calls as qwen's has them.",
    )
    thinking: bool = Field(False, description="Whether a reasoning model thinks before it answers. Labels want false.")
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings.")


AUTO = "auto"
"""As `data.validation`: a share of the training rows that need not be thought about."""


class Data(Section):
    """The rows it is trained on and the held-out rows it is measured on."""

    train: str | tuple[str, ...] = Field(
        description="A file or several: sharegpt, alpaca, openai messages; json, jsonl, csv, parquet."
    )
    eval: str | tuple[str, ...] | None = Field(None, description="Held-out rows, never trained on.")
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Instead of `eval`: the share of the training rows to hold out."
    )
    validation: str | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="For `train.keep: accuracy`, to choose a checkpoint by: a file, a share of the training rows, or"
        " `auto`, which is a tenth of them and 200 at most. Never held-out rows.",
    )
    test: str | None = Field(None, description="Rows for one last measurement of a sweep's winner.")
    system: str | None = Field(None, description="System text for rows that bring none; it is also served.")
    columns: dict[str, str] | None = Field(None, description="Names of a file's own columns, such as `prompt: title`.")
    weights: tuple[float, ...] | None = Field(None, description="One sampling weight for each training file.")
    max_samples: Annotated[int, Field(ge=1)] | None = Field(None, description="Train on at most so many rows.")
    accept: tuple[str, ...] = Field((), description="Kinds of data errors that are known and accepted.")
    seed: int = Field(42, description="Decides the split and the sample.")


class Evaluate(Section):
    """How the held-out rows are answered and scored."""

    task: Literal["classification", "generation", "tools"] = Field(
        "classification", description="What the answers are: labels, texts, or calls of tools."
    )
    turns: Literal["last", "all"] = Field(
        "last", description="Which answers of a held-out conversation are asked for and scored."
    )
    baseline: bool = Field(True, description="Also score the untouched base model.")
    prompted: bool = Field(
        True, description="Of a classification whose `base` is asked: ask it again with the labels in its system text."
    )
    shots: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="So many training rows with their labels are told besides, as far as 2048 bytes go."
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = Field(16, description="The longest answer, in tokens.")
    labels: tuple[str, ...] | None = Field(None, description="The known labels; by default those of the held-out rows.")
    better_than: tuple[Literal["base", "majority"], ...] = Field(
        ("base", "majority"),
        description="What the tuned model must be shown to beat (stage sft), else exit code 5: the untouched base model"
        " and always answering the most frequent training label; `[]` asks for nothing.",
    )
    confidence: bool = Field(
        True, description="Measure how sure each GGUF of a classification is of its answers, and what that is worth."
    )
    divergence: bool = Field(
        True,
        description="Measure how far each GGUF's probabilities lie from those of what it was made from; always where"
        " `gate.max_divergence` limits that.",
    )
    general: bool = Field(
        True, description="Measure on 60 general prompts what training took from the base model's general ability."
    )
    metrics: tuple[str, ...] = Field(
        (), description="Metrics of your own: `FILE.py:FUNCTION`, a row → a number from 0 to 1, more being better."
    )
    trust_code: bool = Field(False, description="Run the code of `evaluate.metrics`.")
    artifacts: tuple[str, ...] = Field(
        ("base", "tuned", "gguf-*"),
        min_length=1,
        description="Who answers the held-out rows; `tuned` always does. A GGUF left out is made and not proven.",
    )

    def asks(self, artifact: str) -> bool:
        """Whether an artifact answers the held-out rows."""
        if artifact == "base" and not self.baseline:
            return False
        if artifact == "base-prompted":
            return self.prompted and self.task == "classification" and self.asks("base")
        return artifact == "tuned" or any(fnmatchcase(artifact, pattern) for pattern in self.artifacts)


class EarlyStopping(Section):
    """Trials that look worse than the others are ended before they are trained to the end."""

    method: Literal["asha", "median"] = Field(
        "asha", description="`asha` keeps the best quarter at each rung, `median` whatever beats the median."
    )
    metric: Literal["eval_loss", "loss"] = Field("eval_loss", description="What is watched while a trial trains.")
    grace_steps: Annotated[int, Field(ge=1)] = Field(20, description="No trial is ended before so many steps.")


class Sweep(Section):
    """One spec, many runs."""

    method: Literal["grid", "random", "tpe"] = Field("grid", description="How points are chosen.")
    parameters: dict[str, Any] = Field(
        min_length=1, description="Key → list, `{low, high, log}` or `{low, high, step}`."
    )
    metric: str = Field("accuracy", description="What the ranking compares, on held-out rows.")
    trials: Annotated[int, Field(ge=1)] | None = Field(
        None, description="How many points random and tpe try; by default 20."
    )
    seeds: Annotated[int, Field(ge=1)] = Field(1, description="How often each point is trained, with other seeds.")
    early_stopping: EarlyStopping | None = Field(None, description="End hopeless trials early.")
    parallel: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description="Trials at the same time. `auto`, the default on a cluster: here one for each GPU, or for every"
        " four CPU cores (two at least), on Ray all that fit, on Slurm 100 jobs.",
    )
    executor: Executor = Field("local", description="Where trials run; docs/scaling.md has what a cluster needs.")
    ray: Ray = Field(default_factory=Ray)
    slurm: Slurm = Field(default_factory=Slurm)

    def wanted(self, executor: str, folder: Path, processes: int = 1) -> Wanted:
        """What this section asks of an executor, its own or another; a cluster takes all it can unless told less."""
        given = executor == "local" or "parallel" in self.model_fields_set
        return Wanted(self.parallel if given else "auto", getattr(self, executor, None), folder, processes)


class RayWorkers(Section):
    """Workers that Ray places on its cluster."""

    workers: Annotated[int, Field(ge=1)] = Field(
        description="How many; LLaMA-Factory gives each a GPU and ten CPU cores."
    )


class Launch(Section):
    """One training over many devices. Without this section LLaMA-Factory decides."""

    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Processes on each node, one a GPU; `auto`: as many as there are GPUs, one on a CPU."
    )
    nodes: Annotated[int, Field(ge=1)] = Field(1, description="Machines; `plan -v` shows the command of each.")
    master: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{1,5}$")] | None = Field(
        None, description="`HOST:PORT` of node 0, as the other nodes reach it."
    )
    min_nodes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Elastic: begin, and go on when nodes are lost, with at least so many."
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        0, description="How often torchrun restarts all processes from the newest checkpoint when one has died."
    )
    deepspeed: str | None = Field(
        None, description="`z0`, `z2`, `z3`, `z2-offload`, `z3-offload`, or a DeepSpeed JSON file."
    )
    fsdp: str | None = Field(None, description="transformers' `fsdp` argument, such as `full_shard auto_wrap`.")
    ray: RayWorkers | None = Field(None, description="Let Ray place the processes instead of torchrun.")
    global_batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Rows a step, held as devices change; decides `gradient_accumulation_steps`."
    )


class Spec(Section):
    """A whole spec.yaml."""

    name: Name = Field(description="Lower-case letters, digits and hyphens; part of every run's id.")
    model: Model = Field(default_factory=Model)
    data: Data
    train: dict[str, Any] = Field(
        default_factory=dict, description="Any LLaMA-Factory training argument, checked against the installed version."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate)
    export: Export = Field(default_factory=Export)
    sweep: Sweep | None = None
    launch: Launch | None = None
    execution: Literal["auto", "cli", "warm"] = Field(
        "auto", description="`cli` starts llamafactory-cli for each stage, `warm` reuses one that is loaded."
    )
    speed: Literal["auto", "off"] = Field(
        "auto",
        description="`auto` adds arguments that only speed up training and answering where memory allows: `plan -v`.",
    )
    llama_cpp: str | None = Field(None, description="A llama.cpp checkout of your own, instead of the pinned one.")

    @property
    def training(self) -> dict[str, Any]:
        """All training arguments: our defaults, overridden by the user's."""
        return with_defaults(self.train)

    @property
    def kind(self) -> TrainingKind:
        """What kind of training it is, and all that follows from that."""
        return TRAINING_KINDS[self.training["stage"]]

    @property
    def keeps_best(self) -> bool:
        """Whether the checkpoint that goes on is chosen, rather than the last."""
        return bool(self.train.get(KEEP) == "accuracy")

    @property
    def launched(self) -> dict[str, Any]:
        """The launch section as plain values; empty without one."""
        return self.launch.model_dump() if self.launch else {}


LORA = "lora"

DEFAULTS: dict[str, Any] = {
    "stage": "sft",
    "finetuning_type": LORA,
    "lora_target": "all",
    "cutoff_len": 1024,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1.0e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "logging_steps": 5,
    "logging_nan_inf_filter": False,  # else transformers logs 0 for a loss that is no number, as if all were well
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "plot_loss": True,
    "report_to": "none",
    "seed": 42,
}
"""Where LLaMA-Factory's own defaults would not learn from 300 rows, or would fill the disk."""


KEEP = "keep"
KEEPS = ("last", "accuracy")
KEEP_ABOUT = (
    "Which checkpoint goes on: the last, or the one that answers the rows of `data.validation` best, whatever their"
    " task measures answers by. Needs LoRA."
)


def with_defaults(train: Mapping[str, Any], **unasked: Any) -> dict[str, Any]:
    """What stands under `train:` over our defaults, without what is none of LLaMA-Factory's arguments; between them,
    what follows from other sections."""
    defaults = {**DEFAULTS, **unasked}
    if train.get(KEEP) == "accuracy":
        del defaults["save_total_limit"]  # the best may be any of them
    return {**defaults, **{key: value for key, value in train.items() if key != KEEP}}
