"""What is answered, in OpenAI's shapes: whole answers, chunks of a stream, calls, counts and errors."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from orchestrator.chat_template.thoughts import Parts
from orchestrator.evaluation.calls import Call, Calls
from orchestrator.serving.openai_server.answer import Answer, Words
from orchestrator.serving.openai_server.message import Refused

DONE = "data: [DONE]\n\n"


class Chat:
    """An answer to a conversation."""

    whole_object, chunk_object, prefix, prompt_param = (
        "chat.completion",
        "chat.completion.chunk",
        "chatcmpl",
        "messages",
    )

    def __init__(self, model: str, thoughts: Words | None = None) -> None:
        self.thoughts = thoughts
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, answers: Sequence[Answer], prompt_tokens: int) -> dict[str, Any]:
        """All answers to one request."""
        choices = [self._choice(index, self._said(answer), answer) for index, answer in enumerate(answers)]
        counts = usage(prompt_tokens, sum(answer.tokens for answer in answers))
        return {**self._head, "object": self.whole_object, "choices": choices, "usage": counts}

    def first(self, index: int) -> dict[str, Any]:
        """The chunk that an answer begins with."""
        return self._chunk([self._choice(index, {"delta": {"role": "assistant", "content": ""}})])

    def more(self, index: int, parts: Parts) -> dict[str, Any]:
        """A chunk with what the answer has grown by."""
        return self._chunk([self._choice(index, {"delta": _said(parts, whole=False)})])

    def called(self, index: int, calls: Calls) -> dict[str, Any]:
        """The chunk with the calls of an answer."""
        made = [as_openai(call, number) for number, call in enumerate(calls)]
        return self._chunk([self._choice(index, {"delta": {"tool_calls": made}})])

    def last(self, index: int, answer: Answer) -> dict[str, Any]:
        """The chunk that says why an answer ended."""
        return self._chunk([self._choice(index, {"delta": {}}, answer)])

    def counted(self, counts: dict[str, int]) -> dict[str, Any]:
        """The chunk with the counts of a whole stream."""
        return {**self._chunk([]), "usage": counts}

    def _said(self, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", **_said(answer.parts, whole=True)}
        if answer.calls:
            message |= {"content": message["content"] or None, "tool_calls": list(map(as_openai, answer.calls))}
        return {"message": message}

    def _choice(self, index: int, said: dict[str, Any], ended: Answer | None = None) -> dict[str, Any]:
        sure = {"confidence": ended.confidence} if ended and ended.confidence else {}
        reason = ended.finish_reason if ended else None
        return {"index": index, **said, "logprobs": None, **sure, "finish_reason": reason}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": self.chunk_object, "choices": choices}


class Text(Chat):
    """A text that goes on with another."""

    whole_object = chunk_object = "text_completion"
    prefix, prompt_param = "cmpl", "prompt"

    def first(self, index: int) -> dict[str, Any]:
        """No text yet."""
        return self.more(index, Parts())

    def more(self, index: int, parts: Parts) -> dict[str, Any]:
        """A chunk with what the text has grown by."""
        return self._chunk([self._choice(index, {"text": parts.answer})])

    def last(self, index: int, answer: Answer) -> dict[str, Any]:
        """The chunk that says why the text ended."""
        return self._chunk([self._choice(index, {"text": ""}, answer)])

    def _said(self, answer: Answer) -> dict[str, Any]:
        return {"text": answer.parts.answer}


def _said(parts: Parts, whole: bool) -> dict[str, Any]:
    """Thoughts apart from the content, under the name that llama-server and vLLM give them; a whole has a content."""
    thought = {"reasoning_content": parts.thought} if parts.thought else {}
    return thought | ({"content": parts.answer} if parts.answer or whole else {})


def as_openai(call: Call, index: int | None = None) -> dict[str, Any]:
    """A call as OpenAI answers it, with an id of its own; with its number in a stream."""
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    numbered = {} if index is None else {"index": index}
    return {**numbered, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Counts of tokens; the one that ends an answer is none of it."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def error(refused: Refused) -> dict[str, Any]:
    """The body of a refusal, or of a failure of the server's own."""
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}


def event(body: dict[str, Any]) -> str:
    """A server-sent event, in ASCII: many readers cut its line at U+2028 and the like as well."""
    return f"data: {json.dumps(body)}\n\n"
