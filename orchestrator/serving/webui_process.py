"""LLaMA-Factory's web board with one more model in its list, guarded: `board CONFIG.json`."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.lib import program
from orchestrator.lib.files import read_json
from orchestrator.serving.guard import Guard


def main(config: Path) -> None:
    """Serve the board in this folder until it is ended; where it listens is in the environment."""
    from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS, DownloadSource

    wanted = read_json(config)
    SUPPORTED_MODELS[wanted["name"]] = {DownloadSource.DEFAULT: wanted["base"]}
    DEFAULT_TEMPLATE[wanted["name"]] = wanted["template"]
    from llamafactory.extras.misc import fix_proxy
    from llamafactory.webui.interface import create_ui
    from starlette.middleware import Middleware

    fix_proxy()  # as llamafactory.webui.interface.run_web_ui does
    create_ui().queue().launch(inbrowser=True, app_kwargs={"middleware": [Middleware(Guard)]})


if __name__ == "__main__":
    program.run(lambda: main(Path(sys.argv[1])))
