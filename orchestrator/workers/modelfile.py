"""Write a Modelfile for each GGUF: `modelfile CONFIG.json`."""

from __future__ import annotations

from pathlib import Path

from orchestrator import layout, workers
from orchestrator.files import read_json, write_text
from orchestrator.render import Renderer
from orchestrator.stages.export import OLLAMA_TEMPLATE


def main(config: Path) -> None:
    """Write export/Modelfile.KIND for each GGUF, and the plain Modelfile for the last one asked for."""
    wanted, trained = read_json(config), read_json(Path(layout.SERVING))
    render = Renderer(Path(wanted["project"]))
    for kind, gguf in wanted["files"].items():
        text = render(
            "Modelfile.j2",
            name=wanted["name"],
            gguf=Path(gguf).name,
            ollama_template=Path(OLLAMA_TEMPLATE).read_text(encoding="utf-8"),
            system=wanted["system"] or trained["system"],
            stop=trained["stop"],
            parameters=wanted["parameters"],
        )
        write_text(Path(f"{layout.MODELFILE}.{kind}"), text)
        write_text(Path(layout.MODELFILE), text)


if __name__ == "__main__":
    workers.run(main)
