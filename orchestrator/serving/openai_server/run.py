"""An engine behind its server, until a signal comes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from orchestrator.evaluation.calls import CallReader
from orchestrator.serving.guard import Guard
from orchestrator.serving.openai_server.app import Ask, Served, make_app
from orchestrator.serving.openai_server.engine import Engine

KEY_VARIABLE = "ORCHESTRATOR_API_KEY"  # as orchestrator.ship.serve sets it
LAST_SECONDS = 2
"""How long answers under way may go on once the server is told to end."""


def serve(engine: Engine, wanted: Mapping[str, Any], sure: Ask | None = None) -> None:
    """Serve at the host and port of a server's configuration; the key comes in the environment and leaves it."""
    import uvicorn

    key = os.environ.pop(KEY_VARIABLE, "") or None
    thoughts = tuple(wanted["thoughts"]) if wanted["thoughts"] else None
    reader = CallReader(wanted["calls_of"]) if wanted.get("calls_of") else None
    app = Guard(make_app(Served(engine, wanted["name"], key, thoughts, reader, sure)))
    at = {"host": wanted["host"], "port": wanted["port"]}
    uvicorn.run(app, **at, log_level="info", timeout_graceful_shutdown=LAST_SECONDS)
