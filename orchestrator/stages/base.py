"""What all stages share: the facts they may look at, and the class that declares one and carries it out.

A stage is one class in one file. Its fields are its configuration: `plan` fills them in, they are written to
configs/NAME.json, and `python -m orchestrator.stages PROGRAM configs/NAME.json` reads them back and calls `run`.
A stage that another tool carries out only has `plan`, whose steps hold that tool's command.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.chat_template.registry import TemplateName
from orchestrator.lib import layout
from orchestrator.lib.render import Renderer
from orchestrator.lib.step import Step
from orchestrator.lib.training_kinds import TrainingKind
from orchestrator.spec.sections import LORA, Spec, with_defaults
from orchestrator.spec.training import MODELS, paths


@dataclass(frozen=True, slots=True)
class Context:
    """A spec together with the facts about this machine that decide commands and fingerprints."""

    spec: Spec
    project: Path
    base_path: Path
    """The base model's folder."""
    base_identity: str
    template: str
    """Its name, `auto` already resolved; with a tool format where it is not trained with its own."""
    data_hashes: Mapping[str, str]
    """Data file as the spec names it → sha256."""
    versions: Mapping[str, str]
    """Package → version, for the packages that results depend on."""
    converter: Path
    """The llama.cpp folder."""
    render: Renderer
    argument_hashes: Mapping[str, str] = field(default_factory=dict)
    """`train.NAME` → the hash of the contents of the file or the model that this argument names."""
    adapter: Path | None = None
    """The folder of an earlier run's adapter over the base model, to go on with."""
    base_cure: str | None = None
    """What was done that the base model's tokenizer is loaded rightly, in a few words."""
    gpus: int = 0
    """GPUs of this machine that a training may use."""
    cores: int = 1
    """CPU cores of this machine that it may use."""

    @property
    def training(self) -> dict[str, Any]:
        """The training arguments: our defaults, overridden by the user's."""
        # A preference is learnt against the model it starts from. With one adapter, LLaMA-Factory's reference would be
        # the model without any: `create_ref_model` in llamafactory/train/trainer_utils.py.
        prefers = self.adapter and self.kind.prefers
        training = with_defaults(self.spec.train, **({"create_new_adapter": True} if prefers else {}))
        # LLaMA-Factory would look for a relative one in the run's folder, and then on the hub.
        return training | {key: str(path) for key, path in paths(training, self.project).items() if key in MODELS}

    @property
    def kind(self) -> TrainingKind:
        """What kind of training it is, and all that follows from that."""
        return self.spec.kind

    @property
    def template_arguments(self) -> dict[str, str]:
        """The template as arguments of LLaMA-Factory."""
        return TemplateName.of(self.template).arguments()

    @property
    def adapts(self) -> bool:
        """Whether training leaves an adapter beside the base model instead of a whole model."""
        return self.training["finetuning_type"] in (LORA, "oft")

    @property
    def over_adapter(self) -> bool:
        """Whether training makes a second adapter, over an earlier run's."""
        return self.adapter is not None and bool(self.training.get("create_new_adapter"))

    @property
    def trained_by(self) -> str:
        """The stage that leaves what goes on."""
        return "keep" if self.spec.keeps_best else "train"

    @property
    def trained(self) -> str:
        """The folder that it is left in."""
        return layout.KEPT if self.spec.keeps_best else layout.TRAINED

    def base(self) -> dict[str, Any]:
        """The arguments that make LLaMA-Factory load the model that training starts from."""
        return self._loads(str(self.adapter) if self.adapter else "")

    def tuned(self) -> dict[str, Any]:
        """The arguments that make LLaMA-Factory load the tuned model from a run's folder."""
        if not self.adapts:
            return {"model_name_or_path": self.trained}
        return self._loads(f"{self.adapter},{self.trained}" if self.over_adapter else self.trained)

    def _loads(self, adapters: str) -> dict[str, Any]:
        base = {"model_name_or_path": str(self.base_path)}
        # LoRA of oft too: LLaMA-Factory loads adapters only so, and PEFT sees what they are
        return {**base, "adapter_name_or_path": adapters, "finetuning_type": LORA} if adapters else base

    def picked(self, *packages: str) -> dict[str, str]:
        """The versions of some packages, as inputs of a step."""
        return {name: self.versions[name] for name in packages}


TRAINING_PACKAGES = ("llamafactory", "transformers", "torch", "peft", "accelerate")
ENTRY = "orchestrator.stages"
"""The module that every stage of ours is started through."""


class Stage:
    """One kind of work of the chain."""

    program: ClassVar[str] = ""
    """Its name for `python -m orchestrator.stages`; empty where another tool does the work."""
    phase: ClassVar[str]
    optional: ClassVar[tuple[str, ...]] = ()
    """Fields that the configuration leaves out where they are None."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """The steps that a spec makes of it, none where the spec does not ask for it. Starts and changes nothing."""
        raise NotImplementedError

    def run(self) -> None:
        """Do the work, in the run's folder. What it raises decides the exit code and what the user is told."""
        raise NotImplementedError

    def configuration(self) -> str:
        """The fields as JSON, in their order."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}  # type: ignore[arg-type]
        kept = {name: value for name, value in values.items() if not (name in self.optional and value is None)}
        return json.dumps(kept, ensure_ascii=False, indent=2) + "\n"

    def step(self, name: str, *, files: Mapping[str, str] | None = None, **about: Any) -> Step:
        """The step called `name` that runs this stage with these fields; `about` are further fields of Step."""
        config = layout.stage_config(name)
        return Step(
            stage=name,
            phase=self.phase,
            argv=(sys.executable, "-m", ENTRY, self.program, config),
            files={config: self.configuration(), **(files or {})},
            **about,
        )
