"""llama-cpp-python's OpenAI-compatible server over one GGUF: `serve_gguf CONFIG.json`.

The prompt is what the template inside the GGUF makes, with no second BOS; answers end at the stop words of training,
and a conversation without a system text gets the one of training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import workers
from orchestrator.errors import MissingError, StageError
from orchestrator.files import read_json
from orchestrator.workers.guard import Guard
from orchestrator.workers.thoughts import Thoughts

KEY_VARIABLE = "ORCHESTRATOR_API_KEY"  # as orchestrator.ship.serve sets it
AS_MEASURED = {"temperature": 0.0, "repeat_penalty": 1.0}
"""What a request means that does not say otherwise. The server's own defaults sample, and punish repetition: answers
would differ from those that were measured, even for a client that asks for temperature 0."""


def main(config: Path) -> None:
    """Serve until a signal comes."""
    try:
        import uvicorn
        from llama_cpp.server import app as server
        from llama_cpp.server.settings import ModelSettings, ServerSettings
    except ImportError as error:
        raise MissingError(f"{error}", "pip install 'llama-cpp-python[server]'") from None

    wanted = read_json(config)
    key = os.environ.pop(KEY_VARIABLE, "") or None
    settings = ServerSettings(host=wanted["host"], port=wanted["port"], api_key=key, interrupt_requests=False)
    app = server.create_app(server_settings=settings, model_settings=[ModelSettings(**model_settings(wanted))])
    llama = server._llama_proxy()
    llama.chat_handler = chat_handler(llama, wanted["stop"], wanted["system"])
    app.add_middleware(Defaults, values=AS_MEASURED)
    uvicorn.run(Guard(Thoughts(app)), host=wanted["host"], port=wanted["port"], log_level="info")


class Defaults:
    """ASGI middleware that adds values to JSON requests which do not give them."""

    def __init__(self, app: Any, values: Mapping[str, Any]) -> None:
        self._app, self._values = app, values

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Read the whole request, complete it, and pass it on as one message."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        pending = [{"type": "http.request", "body": completed(b"".join(parts), self._values), "more_body": False}]

        async def replay() -> Any:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)


def completed(body: bytes, values: Mapping[str, Any]) -> bytes:
    """A JSON object with the values it lacks; anything else as it is, for the server to refuse."""
    try:
        given = json.loads(body)
    except ValueError:
        return body
    return json.dumps({**values, **given}).encode() if isinstance(given, dict) else body


def model_settings(wanted: dict[str, Any]) -> dict[str, Any]:
    """How llama.cpp loads the file; `logits_all` would keep the scores of every token of the context in memory."""
    return {
        "model": wanted["gguf"],
        "model_alias": wanted["name"],
        "lora_path": wanted["adapter"],
        "n_ctx": wanted["context"],
        "n_gpu_layers": -1,
        "logits_all": False,
        "chat_format": "chat_template.default",
        "verbose": False,
    }


def chat_handler(llama: Any, stop: Sequence[str], system: str | None) -> Any:
    """llama-cpp-python's own handler for Jinja templates, with the stop words and the system text of training."""
    from llama_cpp import llama_chat_format

    if "tokenizer.chat_template" not in llama.metadata:
        raise StageError("the GGUF has no chat template", "Export again; the merged model lost chat_template.jinja.")
    ids = [llama.tokenize(word.encode(), add_bos=False, special=True) for word in stop]
    formatter = llama_chat_format.Jinja2ChatFormatter(
        template=llama.metadata["tokenizer.chat_template"],
        eos_token=_text(llama, llama.token_eos()),
        bos_token=_text(llama, llama.token_bos()),
        stop_token_ids=[word[0] for word in ids if len(word) == 1],
    )

    def as_trained(*, messages: list[dict[str, Any]], **options: Any) -> Any:
        given = any(message["role"] == "system" for message in messages)
        asked = messages if given or not system else [{"role": "system", "content": system}, *messages]
        response = formatter(messages=asked, **options)
        response.stop = [word for word in dict.fromkeys([*(response.stop or ()), *stop]) if word]
        return response

    return llama_chat_format.chat_formatter_to_chat_completion_handler(as_trained)


def _text(llama: Any, token: int) -> str:
    return str(llama._model.token_get_text(token)) if token >= 0 else ""


if __name__ == "__main__":
    workers.run(main)
