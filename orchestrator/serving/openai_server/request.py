"""The body of a request, checked before an engine sees it. Sources: OpenAI's API reference, chat and completions.

What is known and not done here is refused unless it asks for nothing (`logprobs: false`, `tools: []`); so is a
parameter that nobody knows, as OpenAI does. Nothing that was asked for is left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from orchestrator.chat_template.tools import ToolError, canonical_tools
from orchestrator.serving.openai_server.engine import Engine, Message, Sampling
from orchestrator.serving.openai_server.message import Body, Ignored, NotDone, Refused, Turn

COOLEST = 0.01
"""The lowest temperature above 0: scores divided by less leave the range of float16."""
MOST_CHOICES = 16
ALTERNATIVES = ("str", "list[str]", "list[TextPart]")
"""What pydantic calls the kinds of value that one field may have, in the place where something is wrong."""


def _canonical(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        return canonical_tools(value)[0]
    except ToolError as error:
        raise PydanticCustomError("no_tools", "{said}", {"said": str(error)}) from None


Tools = Annotated[list[dict[str, Any]], AfterValidator(_canonical)]
"""Tools, brought into the form that they were trained in."""


class StreamOptions(Body):
    """Whether the last chunk of a stream counts tokens."""

    include_usage: bool | None = None
    include_obfuscation: Ignored


class _Request(Body):
    """What both kinds of request may say."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, lt=1 << 31)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repeat_penalty: float | None = Field(None, ge=0.01, le=10)  # scores divided by less leave the range of float32
    user: Ignored
    logprobs: NotDone = None
    logit_bias: NotDone = None

    @property
    def limit(self) -> int | None:
        """The most tokens of one answer; None for as many as there is room for."""
        return self.max_tokens

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a count of its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def require_sound(self) -> None:
        """Raise Refused for what no single field shows."""

    def sampling(self) -> Sampling:
        """How the next token is chosen. Greedily unless told otherwise, as answers are measured; nothing is cut off
        and nothing is punished unasked."""
        temperature = self.temperature or 0.0
        return Sampling(
            temperature=temperature if temperature >= COOLEST else 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            seed=None if self.seed is None else self.seed % (1 << 32),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repeat_penalty=1.0 if self.repeat_penalty is None else self.repeat_penalty,
        )


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1)
    confidence: bool | None = None
    """Not OpenAI's: whether each choice says how likely every label of a classification is."""
    max_completion_tokens: int | None = Field(None, ge=1)
    metadata: Ignored
    parallel_tool_calls: Ignored
    prompt_cache_key: Ignored
    prompt_cache_retention: Ignored
    safety_identifier: Ignored
    service_tier: Ignored
    store: Ignored
    audio: NotDone = None
    function_call: NotDone = None
    functions: NotDone = None
    modalities: NotDone = None
    prediction: NotDone = None
    reasoning_effort: NotDone = None
    response_format: NotDone = None
    tool_choice: Literal["auto", "none"] | None = None
    tools: Tools | None = None
    top_logprobs: NotDone = None
    verbosity: NotDone = None
    web_search_options: NotDone = None

    @property
    def limit(self) -> int | None:
        """By the newer name, else by the older one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def characters(self) -> int:
        """Characters of all its texts."""
        called = (call.function for turn in self.messages for call in turn.tool_calls or ())
        tools = len(json.dumps(self.tools, ensure_ascii=False)) if self.tools else 0
        return sum(len(turn.text) for turn in self.messages) + sum(len(one.arguments) for one in called) + tools

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that may be called."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def about_tools(self) -> bool:
        """Whether tools are offered, or were called before."""
        return bool(self.offered) or any(turn.role == "tool" or turn.tool_calls for turn in self.messages)

    def tokens(self, engine: Engine) -> list[int]:
        """What the model is given: the conversation in its template."""
        return engine.prompt(self.conversation(), self.offered)

    def conversation(self) -> list[Message]:
        """The messages as a template takes them: at most one system text, at the start, and a question at the end.

        Raises Refused for others: a template would leave a later system text out.
        """
        roles = ["system" if turn.role == "developer" else turn.role for turn in self.messages]
        if "system" in roles[1:]:
            at = roles.index("system", 1)
            raise Refused(400, "a system text stands at the start, and there is one of them", f"messages[{at}].role")
        if roles[-1] not in ("user", "tool"):
            raise Refused(400, f"a conversation ends with a user's message, not with one of {roles[-1]!r}", "messages")
        return [{"role": role, **turn.said()} for role, turn in zip(roles, self.messages, strict=True)]

    def require_sound(self) -> None:
        """Raise Refused for a message without a text, and for a tool's answer to no call."""
        called = False
        for at, turn in enumerate(self.messages):
            if turn.content is None and not turn.tool_calls:
                raise Refused(400, f"messages[{at}].content: a text is missing", f"messages[{at}].content")
            if turn.role == "tool" and not called:
                raise Refused(400, f"messages[{at}]: no call that this tool answers", f"messages[{at}].role")
            if turn.tool_calls and turn.role != "assistant":
                said = f"messages[{at}]: {turn.role!r} calls no tools"
                raise Refused(400, said, f"messages[{at}].tool_calls")
            called = bool(turn.tool_calls) or (called and turn.role == "tool")


class CompletionRequest(_Request):
    """POST /v1/completions: a text to go on with, without any template."""

    prompt: str = Field(min_length=1)
    confidence: NotDone = None
    best_of: Literal[1] | None = None
    echo: NotDone = None
    suffix: NotDone = None

    @property
    def characters(self) -> int:
        """Characters of its text."""
        return len(self.prompt)

    def tokens(self, engine: Engine) -> list[int]:
        """What the model is given: the text as it is."""
        return engine.encode(self.prompt)


Request = TypeVar("Request", bound=_Request)


def read(body: bytes, kind: type[Request]) -> Request:
    """The request. Raises Refused, which names the first thing that is wrong, for anything else.

    pydantic's reader of JSON knows no half surrogates, and no nesting that a stack could not hold.
    """
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None
    request.require_sound()
    return request


def _refusal(error: ValidationError) -> Refused:
    # Of the alternatives of a union, the one that went deepest is the one that was meant.
    first = max(error.errors(include_url=False, include_input=False), key=lambda found: len(found["loc"]))
    unknown = first["type"] == "extra_forbidden"
    param = _path(first["loc"] if unknown else [step for step in first["loc"] if step not in ALTERNATIVES])
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    if unknown:
        return Refused(400, f"unknown parameter {param or ''!r}", param, "unknown_parameter")
    said = first["msg"][:1].lower() + first["msg"][1:]
    return Refused(400, f"{param}: {said}" if param else f"the body: {said}", param, "invalid_value")


def _path(steps: Iterable[int | str]) -> str | None:
    """`messages[0].content`"""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.lstrip(".")[:80] or None
