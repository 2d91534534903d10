"""adapter: the LoRA adapter as a GGUF of a few megabytes, for the base model's own GGUF, with an ADAPTER Modelfile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import link, read_json, write_text
from orchestrator.lib.step import Step
from orchestrator.models.lora_gguf import LoraConverter, unfit_adapter, unfit_training
from orchestrator.models.tokenizer import json_object
from orchestrator.stages.base import Context, Stage

NAME = "adapter"
"""Of the stage, and of its GGUF where others are named by their type."""
BASE = "base"
MODELFILE = f"{layout.MODELFILE}.{NAME}"
MERGED = Path(layout.MERGED)
LOG = Path(layout.log(NAME))


@dataclass(frozen=True)
class Adapter(Stage):
    """The adapter's GGUF, the base model's beside it, and the Modelfile that names both."""

    program = NAME
    phase = "export"
    base: str
    """The base model's folder."""
    identity: str
    """What that model is: decides, with the converter's version, whether its GGUF is in the cache."""
    converter: str
    """The llama.cpp folder."""
    version: str
    modelfile: str
    """The Modelfile of a whole GGUF, which this one follows."""
    gguf: str
    base_gguf: str

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step when the spec asks for it. Raises InputError for an adapter that a GGUF cannot hold."""
        if not context.spec.export.adapter:
            return []
        over = "its adapter lies over another run's" if context.over_adapter else None
        if reason := over or unfit_training(context.training) or unfit_base(context.base_path):
            hint = "Set export.adapter to false; the merged GGUFs hold all of it."
            raise InputError(f"export.adapter: {reason}", hint)
        name, version = context.spec.name, context.versions["llama.cpp"]
        stage = cls(
            base=str(context.base_path),
            identity=context.base_identity,
            converter=str(context.converter),
            version=version,
            modelfile=f"{layout.MODELFILE}.{context.spec.export.gguf[0]}",
            gguf=layout.gguf(name, NAME),
            base_gguf=layout.gguf(name, BASE),
        )
        return [
            stage.step(
                NAME,
                expects=(stage.gguf, stage.base_gguf, MODELFILE),
                needs=(context.trained_by, "template", "modelfile"),
                inputs={"base": context.base_identity, "llama.cpp": version},
            )
        ]

    def run(self) -> None:
        """Write them. Raises InputError for an adapter that no GGUF holds, StageError when the converter fails."""
        trained = Path(layout.trained(Path()))
        peft = read_json(trained / "adapter_config.json")
        if reason := unfit_adapter(peft):
            raise InputError(f"the adapter cannot become a GGUF: {reason}", "Set export.adapter to false.")
        made = LoraConverter(Path(self.base), self.identity, Path(self.converter), self.version, LOG)
        link(made.base_gguf(MERGED), Path(self.base_gguf))
        made.adapter_gguf(trained, Path(self.gguf))
        text = Path(self.modelfile).read_text(encoding="utf-8")
        write_text(Path(MODELFILE), over_base(text, Path(self.base_gguf).name, Path(self.gguf).name))


def unfit_base(folder: Path) -> str | None:
    """Why no adapter over this base model can become a GGUF, or None."""
    if json_object(folder / "config.json").get("kv_lora_rank"):
        return "llama.cpp's converter cannot take apart adapters of multi-head latent attention (kv_lora_rank)"
    return None


def over_base(modelfile: str, base: str, adapter: str) -> str:
    """A Modelfile with its FROM line replaced by the base model and the adapter."""
    lines = modelfile.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return "".join([*lines[:at], f"FROM ./{base}\nADAPTER ./{adapter}\n", *lines[at + 1 :]])
