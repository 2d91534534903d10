"""modelfile: a Modelfile for each GGUF, after the conversion, since only the GGUF knows whether llama.cpp adds BOS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_text
from orchestrator.lib.render import Renderer, fits_modelfile
from orchestrator.lib.step import Step
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import source_type

PLAIN, TOOLS = "Modelfile.j2", "Modelfile.tools.j2"


@dataclass(frozen=True)
class Modelfile(Stage):
    """export/Modelfile.KIND for each GGUF, and the plain Modelfile for the last one asked for."""

    program = "modelfile"
    phase = "export"
    project: str
    name: str
    files: Mapping[str, str]
    """Type → GGUF."""
    converted: str
    """The GGUF that says whether BOS is added."""
    system: str | None
    parameters: Mapping[str, Any]

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step."""
        name, ollama, kinds = context.spec.name, context.spec.export.ollama, context.spec.export.kinds
        files: dict[str, str] = {kind: layout.gguf(name, kind) for kind in kinds}
        converted = layout.gguf(name, source_type(kinds))
        stage = cls(str(context.project), name, files, converted, ollama.system, ollama.parameters)
        return [
            stage.step(
                "modelfile",
                expects=(layout.MODELFILE, *(f"{layout.MODELFILE}.{kind}" for kind in kinds)),
                needs=("prepare", "convert"),
                inputs={name: context.render.source_hash(name) for name in _templates(context)},
            )
        ]

    def run(self) -> None:
        """Write them."""
        trained = read_json(Path(layout.SERVING))
        render, system = Renderer(Path(self.project)), self.system or trained["system"]
        tools = bool(trained.get("tools"))  # which no TEMPLATE writes as training does, so the GGUF's own is served
        template = "" if tools else _template(Path(self.converted), trained, system)
        for kind, gguf in self.files.items():
            text = render(
                TOOLS if tools else PLAIN,
                name=self.name,
                gguf=Path(gguf).name,
                ollama_template=template,
                system=system if system and fits_modelfile(system) else None,
                stop=trained["stop"],
                parameters=self.parameters,
            )
            write_text(Path(f"{layout.MODELFILE}.{kind}"), text)
            write_text(Path(layout.MODELFILE), text)


def _templates(context: Context) -> tuple[str, ...]:
    """What decides the text; ours for tools is left out, so that runs that ended before it counted stay up to date."""
    return (PLAIN, TOOLS) if context.render.overrides(TOOLS) else (PLAIN,)


def _template(gguf: Path, trained: dict[str, Any], system: str | None) -> str:
    """The TEMPLATE. It holds the system text too, so that one which no SYSTEM line can hold is served all the same."""
    from orchestrator.chat_template.ollama import ollama_template
    from orchestrator.chat_template.registry import definition
    from orchestrator.chat_template.spaces import spaced, spacing_of
    from orchestrator.chat_template.turns import special_tokens
    from orchestrator.models.gguf import GgufModel

    shape = spaced(definition(trained["template"]).with_default_system(system), spacing_of(Path(layout.MERGED)))
    with GgufModel(gguf) as model:
        adds_bos = model.adds_bos()  # the converter decides it by architecture, whatever the tokenizer's files say
    return ollama_template(shape, special_tokens(Path(layout.MERGED)), trained["thinking"], adds_bos)
