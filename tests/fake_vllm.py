"""A `vllm` that follows the published command line and HTTP interface of vLLM 0.30, and answers with the question.

https://docs.vllm.ai/en/v0.30.0/cli/serve: an option that vLLM does not have ends it, as does a model that is no folder.
/health is open, everything under /v1 wants the key of VLLM_API_KEY or --api-key.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "#!{python}\nfrom tests.fake_vllm import main\nmain()\n"


def install(folder: Path) -> Path:
    """Write an executable `vllm`, and a package of that name to be found; returns the folder of the executable."""
    (folder / "site/vllm").mkdir(parents=True)
    (folder / "site/vllm/__init__.py").write_text("")
    program = folder / "bin/vllm"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return program.parent


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser("vllm", allow_abbrev=False)
    serve = found.add_subparsers(dest="command", required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model_tag")
    serve.add_argument("--host")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--api-key", nargs="*", default=[])
    serve.add_argument("--served-model-name", nargs="+")
    serve.add_argument("--generation-config", default="auto")
    serve.add_argument("--middleware", action="append", default=[])
    return found


def main() -> None:
    import uvicorn

    asked = parser().parse_args()
    if not (Path(asked.model_tag) / "config.json").is_file():
        sys.exit(f"OSError: {asked.model_tag} is not a local folder and is not a valid model identifier")
    time.sleep(0.5)  # it loads the model before it listens
    uvicorn.run(application(asked), host=asked.host or "0.0.0.0", port=asked.port, log_level="info")


def application(asked: argparse.Namespace) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    name = (asked.served_model_name or [asked.model_tag])[0]
    keys = [*asked.api_key, *filter(None, [os.environ.get("VLLM_API_KEY")])]

    async def health(request: Request) -> Response:
        return Response(status_code=200)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vllm"}]})

    async def chat(request: Request) -> Response:
        body = await request.json()
        if body["model"] != name:
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError", "code": 404}
            return JSONResponse({"error": error}, status_code=404)
        text = body["messages"][-1]["content"]
        if body.get("stream"):
            return StreamingResponse(_events(text, name), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(text), "completion_tokens": 1, "total_tokens": len(text) + 1}
        head = {"id": "1", "object": "chat.completion", "created": 0, "model": name}
        return JSONResponse({**head, "choices": [choice], "usage": usage})

    routes = [Route("/health", health), Route("/v1/models", models)]
    app = Starlette(routes=[*routes, Route("/v1/chat/completions", chat, methods=["POST"])])
    app.add_middleware(Keys, keys=keys)
    for path in asked.middleware:
        module, _, attribute = path.rpartition(".")
        app.add_middleware(getattr(importlib.import_module(module), attribute))
    return app


class Keys:
    """vLLM's AuthenticationMiddleware."""

    def __init__(self, app: Any, keys: list[str]) -> None:
        self._app, self._wanted = app, {f"Bearer {key}".encode() for key in keys}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import JSONResponse

        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        guarded = scope["type"] == "http" and scope["path"].startswith("/v1") and self._wanted
        if guarded and given not in self._wanted:
            await JSONResponse({"error": "Unauthorized"}, status_code=401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _events(text: str, name: str) -> Iterator[str]:
    for piece in text:
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": name, "choices": [choice]}
        yield f"data: {json.dumps(event)}\n\n"
    yield "data: [DONE]\n\n"
