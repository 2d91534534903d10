"""Write what serves the merged model as it was trained: its chat template, the Modelfiles, the GGUF's metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator import layout, workers
from orchestrator.chat_template.jinja import jinja_template
from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.registry import Definition, definition
from orchestrator.chat_template.tokens import converter_adds_bos, special_tokens
from orchestrator.chat_template.turns import starts_with_bos
from orchestrator.files import read_json, write_json, write_text
from orchestrator.render import Renderer
from orchestrator.stages.export import METADATA

MERGED = Path(layout.MERGED)


def main(config: Path) -> None:
    """Write export/merged/chat_template.jinja, export/Modelfile*, export/metadata.json."""
    wanted, trained = read_json(config), read_json(Path(layout.SERVING))
    shape = definition(trained["template"])
    _leave_bos_to_training(shape)
    tokens = special_tokens(MERGED)
    write_text(MERGED / "chat_template.jinja", jinja_template(shape, tokens, trained["thinking"]))
    _drop_other_templates()
    ollama = ollama_template(shape, tokens, trained["thinking"], converter_adds_bos(MERGED))
    values = {**wanted, **trained, "ollama_template": ollama, "system": wanted["system"] or trained["system"]}
    _write_modelfiles(Renderer(Path(wanted["project"])), wanted["files"], values)
    write_json(Path(METADATA), _metadata(wanted))


def _leave_bos_to_training(shape: Definition) -> None:
    """Where training had no BOS, tell llama.cpp not to add one: a token more, and the model sees another prompt."""
    if converter_adds_bos(MERGED) and not starts_with_bos(shape, special_tokens(MERGED)):
        file = MERGED / "tokenizer_config.json"
        write_json(file, {**read_json(file), "add_bos_token": False})


def _drop_other_templates() -> None:
    """The converter must find one template: ours."""
    file = MERGED / "tokenizer_config.json"
    config = read_json(file)
    if config.pop("chat_template", None) is not None:
        write_json(file, config)


def _write_modelfiles(render: Renderer, files: dict[str, str], values: dict[str, Any]) -> None:
    """One for each GGUF, and the plain Modelfile for the last one asked for."""
    for kind, gguf in files.items():
        text = render("Modelfile.j2", gguf=Path(gguf).name, **{key: values[key] for key in values if key != "gguf"})
        write_text(Path(f"{layout.MODELFILE}.{kind}"), text)
        write_text(Path(layout.MODELFILE), text)


def _metadata(wanted: dict[str, Any]) -> dict[str, Any]:
    """Overrides for the converter, in the names that the GGUF specification gives them."""
    datasets = [wanted["dataset"]] if isinstance(wanted["dataset"], str) else wanted["dataset"]
    return {
        "general.name": wanted["name"],
        "general.base_models": [{"name": wanted["base"]}],
        "general.datasets": [{"name": name} for name in datasets],
        "general.tags": ["llama-factory", "fine-tuned"],
    }


if __name__ == "__main__":
    workers.run(main)
