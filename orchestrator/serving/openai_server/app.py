"""The routes: one answer at a time in the order of asking, whole or as a stream; every refusal in OpenAI's shape."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

import anyio
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator.chat_template.thoughts import Parts
from orchestrator.evaluation.calls import CallReader
from orchestrator.serving.guard import Guard
from orchestrator.serving.openai_server import shapes
from orchestrator.serving.openai_server.answer import Answer, CallSplitter, Words
from orchestrator.serving.openai_server.engine import KEY_VARIABLE, Engine
from orchestrator.serving.openai_server.message import Refused
from orchestrator.serving.openai_server.request import ChatRequest, CompletionRequest, read
from orchestrator.serving.openai_server.schema import GETS, POSTS, openapi
from orchestrator.serving.openai_server.shapes import Chat, Text

LONGEST_BODY = 8 << 20
"""Bytes of a request."""
LONGEST_TOKEN = 512
"""Characters; no vocabulary has longer ones, so that a text with more for each token of the context fits in no case."""
LAST_SECONDS = 2
"""How long answers under way may go on once the server is told to end."""
CLIENT_CLOSED = 499
"""What nginx logs for a client that did not wait; nobody receives it."""
NOT_SURE = "no confidence was measured for this model: it is no classifier's GGUF, or an earlier version made it"
FAILED = Refused(500, "the server failed to answer; its log says why")
Asked = ChatRequest | CompletionRequest
Ask = Callable[[Sequence[int]], dict[str, Any]]
log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, slots=True)
class Service:
    """An engine and how it is spoken to."""

    engine: Engine
    name: str
    key: str | None = field(default=None, repr=False)
    thoughts: Words | None = None
    """What surrounds the thoughts of a model that was trained to think: they are answered apart from the content."""
    reader: CallReader | None = field(default=None, repr=False)
    """Of a model that was trained with tools: reads its calls."""
    sure: Ask | None = field(default=None, repr=False)
    """Of a classifier whose confidence was measured: tells it for the tokens of a prompt."""


def make_app(service: Service) -> Any:
    """The ASGI application."""
    server = _Server(service)
    routes = [
        Route("/v1/models", server.models),
        Route("/v1/models/{name:path}", server.model),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.complete, methods=["POST"]),
        Route("/openapi.json", server.schema),
    ]
    handlers: dict[Any, Any] = {
        Refused: lambda _, refused: _refusal(refused),
        HTTPException: _no_route,
        ClientDisconnect: lambda *_: Response(status_code=CLIENT_CLOSED),
        Exception: lambda *_: _refusal(FAILED),
    }
    return Keyed(Starlette(routes=routes, exception_handlers=handlers), service.key)


class Keyed:
    """ASGI middleware: without the key there is one answer to everything."""

    def __init__(self, app: Any, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass on what carries the key."""
        if self._key is None or scope["type"] != "http" or self._opens(dict(scope["headers"])):
            await self._app(scope, receive, send)
        else:
            refused = Refused(401, "the key is missing or wrong", code="invalid_api_key")
            await _refusal(refused)(scope, receive, send)

    def _opens(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(key.strip(), str(self._key).encode())


class EventStream(StreamingResponse):
    """A stream that is closed where it ends: left to the garbage collector, its turn would never be over."""

    async def stream_response(self, send: Any) -> None:
        """Send the events."""
        async with aclosing(cast(AsyncGenerator[str], self.body_iterator)):
            await super().stream_response(send)


class _Server:
    def __init__(self, service: Service) -> None:
        self._service, self._engine = service, service.engine
        self._turn, self._encoding = anyio.Lock(), anyio.CapacityLimiter(1)

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self._service.name:
            raise Refused(404, f"no model {name!r} here, but {self._service.name!r}", "model", "model_not_found")
        return JSONResponse(self._card())

    async def schema(self, _: Request) -> Response:
        return JSONResponse(openapi())

    async def chat(self, request: Request) -> Response:
        asked = read(await _body(request), ChatRequest)
        return await self._answered(request, asked, Chat(self._service.name, self._service.thoughts))

    async def complete(self, request: Request) -> Response:
        asked = read(await _body(request), CompletionRequest)
        return await self._answered(request, asked, Text(self._service.name))

    async def _answered(self, request: Request, asked: Asked, shape: Chat) -> Response:
        if isinstance(asked, ChatRequest) and asked.about_tools and self._service.reader is None:
            raise Refused(400, "this model was trained without tools", "tools", "invalid_value")
        if asked.confidence and self._service.sure is None:
            raise Refused(400, NOT_SURE, "confidence", "invalid_value")
        prompt = await self._prompt(asked, shape)
        if asked.stream:
            events, kept = self._events(asked, prompt, shape), {"Cache-Control": "no-store"}
            return EventStream(events, headers=kept, media_type="text/event-stream")
        answers = []
        for index in range(asked.n or 1):
            answers.append(answer := self._begin(asked, prompt, shape))
            async with aclosing(self._grow(answer, asked, prompt, index)) as growing:
                async for _ in growing:
                    if await request.is_disconnected():
                        raise ClientDisconnect
        return JSONResponse(shape.whole(answers, len(prompt)))

    async def _prompt(self, asked: Asked, shape: Chat) -> list[int]:
        """The tokens, which leave room for at least one more. Raises Refused before any answer has begun."""
        for name in sorted(self._engine.lacks):
            if getattr(asked, name):
                raise Refused(400, f"this engine cannot compute with {name!r}", name, "invalid_value")
        room, characters = self._engine.context, asked.characters
        if characters > room * LONGEST_TOKEN:
            raise _too_long(f"{characters} characters", room, shape)
        prompt = await anyio.to_thread.run_sync(asked.tokens, self._engine, limiter=self._encoding)
        if len(prompt) >= room:
            raise _too_long(f"{len(prompt)} tokens", room, shape)
        return prompt

    def _begin(self, asked: Asked, prompt: list[int], shape: Chat) -> Answer:
        room = self._engine.context - len(prompt)
        offered = isinstance(asked, ChatRequest) and asked.offered
        caller = CallSplitter(self._service.reader) if offered and self._service.reader else None
        return Answer(min(asked.limit or room, room), asked.stops, shape.thoughts, caller)

    async def _grow(self, answer: Answer, asked: Asked, prompt: list[int], index: int) -> AsyncGenerator[Parts]:
        """One answer, when it is its turn. Closing it ends the computation, and gives the turn to the next."""
        sampling = asked.sampling()
        if sampling.seed is not None:  # the choices of one request differ, and are the same again next time
            sampling = replace(sampling, seed=sampling.seed + index)
        async with self._turn:
            yield Parts()  # so that nothing is computed for a client that has left meanwhile
            pieces = self._engine.answer(prompt, answer.limit, sampling)
            try:
                async for piece in iterate_in_threadpool(pieces):
                    yield answer.feed(piece)
                    if answer.stopped:
                        break
                yield answer.end()
                if asked.confidence and self._service.sure:
                    answer.confidence = await run_in_threadpool(self._service.sure, prompt)
            finally:
                with anyio.CancelScope(shield=True):
                    await run_in_threadpool(pieces.close)

    async def _events(self, asked: Asked, prompt: list[int], shape: Chat) -> AsyncGenerator[str]:
        """The stream. Its status is sent by now, so that a failure becomes an event."""
        tokens = 0
        try:
            for index in range(asked.n or 1):
                yield shapes.event(shape.first(index))
                answer = self._begin(asked, prompt, shape)
                async with aclosing(self._grow(answer, asked, prompt, index)) as growing:
                    async for parts in growing:
                        if parts:
                            yield shapes.event(shape.more(index, parts))
                if answer.calls:
                    yield shapes.event(shape.called(index, answer.calls))
                yield shapes.event(shape.last(index, answer))
                tokens += answer.tokens
            if asked.with_usage:
                yield shapes.event(shape.counted(shapes.usage(len(prompt), tokens)))
            yield shapes.DONE
        except Exception:
            log.exception("an answer failed")
            yield shapes.event(shapes.error(FAILED))

    def _card(self) -> dict[str, Any]:
        return {"id": self._service.name, "object": "model", "created": 0, "owned_by": "orchestrator"}


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise Refused(413, f"the body is longer than {LONGEST_BODY} bytes")
    return bytes(body)


def _too_long(has: str, room: int, shape: Chat) -> Refused:
    said = f"the prompt has {has}; prompt and answer together may have {room} tokens"
    return Refused(400, said, shape.prompt_param, "context_length_exceeded")


def _refusal(refused: Refused) -> Response:
    return JSONResponse(shapes.error(refused), refused.status)


async def _no_route(request: Request, error: HTTPException) -> Response:
    method, path = request.method, request.url.path
    said = f"{method} {path}: {error.detail.lower()}; this server has {', '.join([*POSTS, *GETS])}"
    return JSONResponse(shapes.error(Refused(error.status_code, said)), error.status_code, error.headers)


def serve(engine: Engine, wanted: Mapping[str, Any], sure: Ask | None = None) -> None:
    """Serve at the host and port of a server's configuration; the key comes in the environment and leaves it."""
    import uvicorn

    key = os.environ.pop(KEY_VARIABLE, "") or None
    thoughts = tuple(wanted["thoughts"]) if wanted["thoughts"] else None
    reader = CallReader(wanted["calls_of"]) if wanted.get("calls_of") else None
    app = Guard(make_app(Service(engine, wanted["name"], key, thoughts, reader, sure)))
    at = {"host": wanted["host"], "port": wanted["port"]}
    uvicorn.run(app, **at, log_level="info", timeout_graceful_shutdown=LAST_SECONDS)
