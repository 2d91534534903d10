"""LLaMA-Factory's OpenAI-compatible server, guarded: `serve_llamafactory CONFIG.yaml`.

`llamafactory-cli api` is the same server without the guard: it lets the pages of every site ask it.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator import workers
from orchestrator.workers.guard import Guard
from orchestrator.workers.thoughts import Thoughts


def main(config: Path) -> None:
    """Serve until a signal comes; address, key and the model's name are in API_… variables, as LLaMA-Factory has it."""
    import uvicorn
    import yaml
    from llamafactory.api.app import create_app
    from llamafactory.chat import ChatModel

    app = create_app(ChatModel(yaml.safe_load(config.read_text(encoding="utf-8"))))
    uvicorn.run(Guard(Thoughts(app)), host=os.environ["API_HOST"], port=int(os.environ["API_PORT"]))


if __name__ == "__main__":
    workers.run(main)
