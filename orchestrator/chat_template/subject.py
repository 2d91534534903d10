"""A template in one thinking mode, and the conversations that it is compared on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.chat_template.jinja import Message, jinja_template
from orchestrator.chat_template.refusals import refusal, tool_refusal, unread
from orchestrator.chat_template.registry import Definition, ToolDefinition
from orchestrator.chat_template.taught import Taught, taught
from orchestrator.chat_template.tool_cases import tool_conversations
from orchestrator.chat_template.turns import SpecialTokens, starts_with_bos

QUESTIONS = (
    "What is the capital of France?",
    "Is \"C:\\new\" 'quoted'? {{ .Content }} {{content}} {% raw %}\n\nAnd the second line?",
    "今天天气怎么样？🙂👨\u200d👩\u200d👧\u3000请回答\u2028好吗",
    "  indented, and ending with a new line\n",
)
SYSTEMS = ("You are a careful assistant.", '你是一个“助手”。\n只用一个词回答 {{ x }} \\ "是"。')
ANSWERS = ("Paris.", "没问题，{{ 是的 }}。\n第二行！")


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation."""

    messages: tuple[Message, ...]
    default_system: str | None
    thought: bool = False
    """Whether an earlier answer has a thought, which clients of Ollama do not send back."""
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def shape(self) -> str:
        """Who speaks in turn."""
        return "+".join(message["role"] for message in self.messages)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared."""

    definition: Definition
    thinking: bool
    tokens: SpecialTokens
    tools: ToolDefinition | None = None
    """For a model that was trained with tools."""

    def cases(self) -> list[Case]:
        """The conversations that it may be served."""
        alone = refusal(self.definition.name, self.thinking, multi_turn=True)
        words = self.definition.thought_words if self.definition.reasons else None
        plain = [case for case in _cases(words) if len(case.messages) < 3 or not alone]
        if self.tools is None:
            return plain
        offered = tool_conversations(self.tools, self.definition.thought_words)
        with_tools = [Case(tuple(messages), None, tools=tuple(tools)) for messages, tools in offered]
        return [*with_tools, *(case for case in plain if case.default_system is None)]

    def refusal(self) -> str | None:
        """Why it is not served at all, or None."""
        refused = tool_refusal if self.tools else refusal
        return refused(self.definition.name, self.thinking)

    def jinja(self, case: Case) -> str:
        """The chat template that a case is served with."""
        shape = self.definition.with_default_system(case.default_system)
        return jinja_template(shape, self.tokens, self.thinking, self.tools)

    def unread(self) -> str:
        """Why llama.cpp's server cannot read its calls, or ""."""
        return (unread(self.tools.call_format) if self.tools else None) or ""

    def taught(self) -> list[Taught]:
        """Answers that llama.cpp's server is to read calls and thoughts out of."""
        if self.tools is None or self.unread():
            return []
        return list(taught(self.definition, self.thinking, self.tokens, self.tools))

    def runtimes(self) -> list[bool]:
        """Whether the runtime adds BOS: each way in which this template can be served."""
        return [False, True] if starts_with_bos(self.definition, self.tokens) else [False]


def _cases(thought_words: tuple[str, str] | None) -> Iterator[Case]:
    """Questions alone and after a system text, a first turn or both; with the template's default, none, and another.

    Where a template reasons, also after an answer with a thought.
    """
    for number, question in enumerate(QUESTIONS):
        asked = _said("user", question)
        system, again = _said("system", SYSTEMS[number % 2]), _said("user", QUESTIONS[number - 1])
        answered = (asked, _said("assistant", ANSWERS[number % 2]), again)
        for default in (None, "", "自定义的“系统”\u3000提示。"):
            yield Case((asked,), default)
            yield Case(answered, default)
        yield Case((system, asked), None)
        yield Case((system, *answered), None)
        if thought_words:
            opening, closing = thought_words
            thought = _said("assistant", f"{opening}嗯，{number}…{closing}{ANSWERS[number % 2]}")
            yield Case((asked, thought, again), None, thought=True)


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
