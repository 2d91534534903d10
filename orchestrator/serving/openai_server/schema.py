"""The server's own description, as OpenAPI: what clients, and those who test it, read at /openapi.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator.serving.openai_server.request import ChatRequest, CompletionRequest

POSTS: dict[str, type[BaseModel]] = {"/v1/chat/completions": ChatRequest, "/v1/completions": CompletionRequest}
GETS = ("/v1/models", "/v1/models/{name}", "/openapi.json")
REFUSALS = {"400": "not well-formed, not done, or too long", "401": "no key", "413": "more than the server reads"}


def openapi() -> dict[str, Any]:
    """The description of every route, with the schemas that requests are checked against."""
    posts = {path: {"post": _operation(REFUSALS, _body(model.__name__))} for path, model in POSTS.items()}
    gets = {path: {"get": _operation({"401": "no key"}, _named(path))} for path in GETS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "orchestrator serve", "version": "1"},
        "paths": posts | gets,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _schemas() -> dict[str, Any]:
    inputs: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in POSTS.values()]
    _, found = models_json_schema(inputs, ref_template="#/components/schemas/{model}")
    return dict(found["$defs"])


def _operation(refusals: dict[str, str], takes: dict[str, Any]) -> dict[str, Any]:
    answers = {status: {"description": text, "content": _json({})} for status, text in refusals.items()}
    return {**takes, "responses": {"200": {"description": "the answer"}, **answers}}


def _body(model: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": _json({"$ref": f"#/components/schemas/{model}"})}}


def _named(path: str) -> dict[str, Any]:
    if "{name}" not in path:
        return {}
    return {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
