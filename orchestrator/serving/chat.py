"""A conversation in the terminal with one artifact, or with two side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.evaluation.calls import Call
from orchestrator.lib.errors import OrchestratorError
from orchestrator.lib.language import localised
from orchestrator.lib.words import agreeing, counted
from orchestrator.serving.endpoint import THOUGHT_WORDS, Endpoint, Message, Tools, ask, stream
from orchestrator.serving.openai_server.shapes import as_openai

QUIT = ("/quit", "/exit", "/q")
FORGET = "/new"
RESULT = "/result "
"""In front of what a tool answers to the call before."""


@dataclass(slots=True)
class Conversation:
    """What was said to one model so far. Without `system` the model gets the system text of its training."""

    endpoint: Endpoint
    max_new_tokens: int
    system: str | None = None
    words: tuple[str, str] = THOUGHT_WORDS
    """Around a thought, which the model is to find in earlier answers as training had it."""
    tools: Tools = ()
    turns: list[Message] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    """The ids of calls that nothing was answered to yet."""

    def say(self, text: str) -> Iterator[str]:
        """The answer to a text, piece by piece, a call in a line of its own; remembered once it is whole.

        A result of a tool is answered once every call has one.
        """
        before, opened = len(self.turns), list(self._open)
        self.turns.append(self._turn(text))
        if self._open:
            number = len(self._open)
            yield localised(f"{counted(number, 'more call')} {agreeing(number, 'want')} a result")
            return
        try:
            yield from self._answer()
        except OrchestratorError:  # what was not answered was not said, so that the conversation can go on
            del self.turns[before:]
            self._open = opened
            raise

    def _answer(self) -> Iterator[str]:
        pieces, calls = list[str](), list[Call]()
        for piece in stream(self.endpoint, self._messages(), self.max_new_tokens, self.words, self.tools):
            if isinstance(piece, Call):
                calls.append(piece)
                yield f"\n{shown(piece)}" if pieces or calls[1:] else shown(piece)
            else:
                pieces.append(piece)
                yield piece
        self._remember("".join(pieces), calls)

    def answer(self, text: str) -> str:
        """The whole answer at once."""
        return "".join(self.say(text))

    def asking(self, text: str) -> list[Message]:
        """What a question would be asked with; it is not remembered."""
        return [*self._messages(), {"role": "user", "content": text}]

    def forget(self) -> None:
        """Begin anew."""
        self.turns.clear()
        self._open.clear()

    def _turn(self, text: str) -> Message:
        if self._open and text.startswith(RESULT):
            return {"role": "tool", "tool_call_id": self._open.pop(0), "content": text.removeprefix(RESULT)}
        self._open.clear()
        return {"role": "user", "content": text}

    def _messages(self) -> list[Message]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns]

    def _remember(self, answer: str, calls: Sequence[Call]) -> None:
        made = [as_openai(call) for call in calls]
        self._open = [call["id"] for call in made]
        self.turns.append({"role": "assistant", "content": answer, **({"tool_calls": made} if made else {})})


def answered(conversation: Conversation, text: str, confidence: bool) -> dict[str, Any]:
    """A question and its answer as plain JSON; `confidence` says whether to ask for how likely each label is."""
    endpoint = replace(conversation.endpoint, confidence=confidence)
    reply = ask(endpoint, conversation.asking(text), conversation.max_new_tokens, conversation.tools)
    told = {"calls": [call.to_json() for call in reply.calls]} if reply.calls else {}
    sure = {"confidence": dict(reply.confidence)} if reply.confidence else {}
    thought = {"thought": reply.thought} if reply.thought else {}
    return {"question": text, "answer": reply.text, **thought, **told, **sure}


def shown(call: Call) -> str:
    """A call as a line: `→ get_weather(city="Oslo")`."""
    given = call.arguments.items() if isinstance(call.arguments, Mapping) else [("", call.arguments)]
    written = (f"{key}{'=' if key else ''}{json.dumps(value, ensure_ascii=False)}" for key, value in given)
    return f"→ {call.name}({', '.join(written)})"


def talk(
    conversations: Mapping[str, Conversation],
    read: Callable[[], str | None],
    show: Callable[[Mapping[str, Conversation], str], None],
) -> None:
    """Read questions and show the answers until `read` returns None or the user quits; /new forgets what was said."""
    while (line := read()) is not None and line.strip() not in QUIT:
        if line.strip() == FORGET:
            for conversation in conversations.values():
                conversation.forget()
        elif line.strip():
            show(conversations, line)
