"""LLaMA-Factory's web board with one more model in its list: `board CONFIG.json`."""

from __future__ import annotations

from pathlib import Path

from orchestrator import workers
from orchestrator.files import read_json


def main(config: Path) -> None:
    """Serve the board in this folder until it is ended; where it listens is in the environment."""
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource

    wanted = read_json(config)
    SUPPORTED_MODELS[wanted["name"]] = {DownloadSource.DEFAULT: wanted["base"]}
    DEFAULT_TEMPLATE[wanted["name"]] = wanted["template"]
    from llamafactory.webui.interface import run_web_ui

    run_web_ui()


if __name__ == "__main__":
    workers.run(main)
