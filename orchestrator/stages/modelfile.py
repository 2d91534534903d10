"""Write a Modelfile for each GGUF: `modelfile CONFIG.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.spaces import spaced, spacing_of
from orchestrator.chat_template.turns import special_tokens
from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_text
from orchestrator.lib.render import Renderer, fits_modelfile
from orchestrator.models.gguf import GgufModel
from orchestrator.stages import entry


def main(config: Path) -> None:
    """Write export/Modelfile.KIND for each GGUF, and the plain Modelfile for the last one asked for."""
    wanted, trained = read_json(config), read_json(Path(layout.SERVING))
    render, system = Renderer(Path(wanted["project"])), wanted["system"] or trained["system"]
    template = _template(Path(wanted["converted"]), trained, system)
    for kind, gguf in wanted["files"].items():
        text = render(
            "Modelfile.j2",
            name=wanted["name"],
            gguf=Path(gguf).name,
            ollama_template=template,
            system=system if system and fits_modelfile(system) else None,
            stop=trained["stop"],
            parameters=wanted["parameters"],
        )
        write_text(Path(f"{layout.MODELFILE}.{kind}"), text)
        write_text(Path(layout.MODELFILE), text)


def _template(gguf: Path, trained: dict[str, Any], system: str | None) -> str:
    """The TEMPLATE. It holds the system text too, so that one which no SYSTEM line can hold is served all the same."""
    shape = spaced(definition(trained["template"]).with_default_system(system), spacing_of(Path(layout.MERGED)))
    with GgufModel(gguf) as model:
        adds_bos = model.adds_bos()  # the converter decides it by architecture, whatever the tokenizer's files say
    return ollama_template(shape, special_tokens(Path(layout.MERGED)), trained["thinking"], adds_bos)


if __name__ == "__main__":
    entry.run(main)
