"""The Jinja chat template that goes into the merged model, and from there into the GGUF.

It has to run in transformers' sandbox, in llama-cpp-python and in llama.cpp's own engine: see `syntax`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.messages import NEXT_RESULT, with_parsed_arguments
from orchestrator.chat_template.registry import Definition, ToolDefinition
from orchestrator.chat_template.syntax import choose, each, put, quote, text, when, write
from orchestrator.chat_template.tool_formats import tool_format
from orchestrator.chat_template.turns import SpecialTokens, ToolTurns, Turns, Wrap, answer_header, tool_turns, turns

if TYPE_CHECKING:
    from jinja2 import Template

Message = Mapping[str, Any]
"""OpenAI's: role, content, and for tools tool_calls and tool_call_id."""

_READ_SYSTEM = put("rest", "messages") + when(
    "messages and messages[0]['role'] == 'system'",
    put("rest", "messages[1:]") + when("messages[0]['content']", put("system", "messages[0]['content']")),
)
_FILLED = put("text", "text if text else ''")


def jinja_template(
    definition: Definition, tokens: SpecialTokens, thinking: bool, tools: ToolDefinition | None = None
) -> str:
    """The chat template, BOS included: those who render one tell the tokenizer to add none.

    It takes `messages` and `add_generation_prompt`; the latter only matters to the empty thought, since the start of
    the answer's turn belongs to the question in LLaMA-Factory's templates. With `tools` it takes `tools`, too, in the
    canonical form, calls in answers, and turns of the role `tool`; without, servers take the model for one that knows
    none. Raises ValueError for a tool format that is not known (`refusals.tool_refusal` says so before).
    """
    written = turns(definition, tokens, thinking)
    told = _Tools.of(tools, tool_turns(definition, tools, tokens)) if tools else None
    by_role = {"user": _user(written, told), "assistant": _assistant(written, told)}
    if told:
        by_role["tool"] = told.result(written)
    told_first = "" if written.system_in_first_user_turn else _system(written, told)
    turn = choose({f"message['role'] == {quote(role)}": body for role, body in by_role.items()})
    return "".join([
        put("system", quote(written.default_system)), _READ_SYSTEM, text(written.prefix), told_first,
        each("message", "rest", put("text", "message['content']") + turn),
    ])  # fmt: skip


def render_messages(
    jinja_text: str,
    messages: Sequence[Message],
    tokens: SpecialTokens,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The text that a chat template makes of a conversation, in the same sandbox as in transformers.

    `tools` are in the canonical form.
    """
    return _compile(jinja_text).render(
        messages=with_parsed_arguments(messages),
        tools=list(tools) or None,
        bos_token=tokens.bos or "",
        eos_token=tokens.eos or "",
        add_generation_prompt=add_generation_prompt,
    )


@dataclass(frozen=True, slots=True)
class _Tools:
    """The parts of a template that only a model with tools has."""

    written: ToolTurns
    declare: str
    """Jinja for `tools`."""
    call: str
    """Jinja for `message['tool_calls']`."""

    @classmethod
    def of(cls, tools: ToolDefinition, written: ToolTurns) -> _Tools:
        told, called = tool_format(tools.format), tool_format(tools.call_format)
        if told is None or called is None:
            raise ValueError(f"no Jinja for the tool formats {tools.format!r} and {tools.call_format!r}")
        return cls(written, told.declare, called.call)

    def system(self, around: Wrap, wanted: str = "system or tools") -> str:
        """The system text and the tools behind it."""
        tools = when("tools", _between(self.written.declared, self.declare))
        return when(wanted, _between(around, write("system") + tools))

    def answer(self, answer: str) -> str:
        """An answer, which may be calls with a text in front of them."""
        return when("message['tool_calls']", _between(self.written.call, write("text") + self.call), answer)

    def result(self, written: Turns) -> str:
        """What tools answered: neighbours are one turn, as LLaMA-Factory makes of them."""
        around, neighbour = self.written.result, "rest[{}]['role'] == 'tool'"
        begun = when(f"loop.first or not {neighbour.format('loop.index0 - 1')}", text(around.before))
        ended = _after(around, written) + _thought(written, with_tools=True)
        last = f"loop.last or not {neighbour.format('loop.index')}"
        return begun + write("text") + when(last, ended, text(NEXT_RESULT))


def _system(written: Turns, told: _Tools | None) -> str:
    return told.system(written.system) if told else when("system", write(_around(written.system, "system")))


def _user(written: Turns, told: _Tools | None) -> str:
    """A question, with the system text and the tools in its turn where the template has them there."""
    first = ""
    if told:
        if written.system_in_first_user_turn:
            first = told.system(written.system, "loop.first and (system or tools)")
        asked = f"{text(written.user.before)}{first}{write('text')}{_after(written.user, written)}"
    else:
        if written.system_in_first_user_turn:
            system = _around(written.system, "system")
            first = when("loop.first and system", put("text", f"{system} + text"))
        asked = first + write(_around(written.user, "text"))
    return asked + _thought(written, with_tools=told is not None)


def _after(around: Wrap, written: Turns) -> str:
    """What follows a question, the start of the answer's turn where there is one, or one is asked for.

    llama.cpp's server renders a template with and without `add_generation_prompt` and expects what differs in front of
    each answer that it reads calls out of (common/parsers/*.cpp: `generation_prompt`).
    """
    header = answer_header(written.user)
    if not header or not around.after.endswith(header):
        return text(around.after)
    ending = text(around.after.removesuffix(header))
    return ending + when("not loop.last or add_generation_prompt", text(header))


def _thought(written: Turns, with_tools: bool) -> str:
    """The empty thought behind the last question, where there is one.

    With tools, the word that opens it stays whole: by it llama.cpp's reader of Qwen3.5 answers knows that the empty
    thought is no part of the answer (common/parsers/qwen3-coder.cpp).
    """
    if not written.empty_thought:
        return ""
    words = written.thought_words or ()
    empty = _word(written, written.empty_thought, words[1:] if with_tools else words)
    wanted = "loop.last and add_generation_prompt"
    if written.thinking:  # the variable by which callers of Qwen3 and its kin ask for no thinking
        wanted += " and enable_thinking is defined and not enable_thinking"
    return when(wanted, write(empty))


def _assistant(written: Turns, told: _Tools | None) -> str:
    """An answer. Thoughts of earlier ones are taken out, as in training.

    One that thinks writes the `reasoning_content` of the last answer: llama.cpp's server renders a template with and
    without it to see whether the model can think, and asks it not to where it cannot (common/chat-diff-analyzer.cpp).
    """
    around = write(_around(written.assistant, "text"))
    if told:  # an answer of nothing but calls has no content, or none that is a text
        around = told.answer(around)
    return f"{_FILLED if told else ''}{_kept_thought(written)}{around}"


def _kept_thought(written: Turns) -> str:
    """Sets the text of an answer, with its thought or without."""
    if written.thought_words is None:
        return ""
    opening, closing = (_word(written, word) for word in written.thought_words)
    cut = put("text", f"text.split({opening})[0] + text.split({closing})[-1]")
    without = when(f"{opening} in text and {closing} in text", cut) + put("text", "text.lstrip('\n')")
    cases = {"not loop.last": without}
    if written.thinking:
        cases["message['reasoning_content']"] = put(
            "text", f"{opening} + message['reasoning_content'] + {closing} + text"
        )
    return choose(cases)


def _word(written: Turns, words: str, hidden: Sequence[str] | None = None) -> str:
    """A text with the words around a thought as an expression.

    Servers look for these words in the template to tell whether a model can think, so that one which was trained not to
    has them (or those of them that are `hidden`) in two pieces. Ollama reads the ability off `<think>` with `</think>`
    (server/images.go).
    """
    if written.thinking or written.thought_words is None:
        return quote(words)
    for word in filter(None, (word.strip() for word in (written.thought_words if hidden is None else hidden))):
        words = words.replace(word, f"{word[:2]}\0{word[2:]}")
    return " + ".join(map(quote, words.split("\0")))


def _around(wrap: Wrap, name: str) -> str:
    """An expression: the two texts with a variable between them."""
    return " + ".join(filter(None, (wrap.before and quote(wrap.before), name, wrap.after and quote(wrap.after))))


def _between(wrap: Wrap, inner: str) -> str:
    """A part of a template between the two texts."""
    return text(wrap.before) + inner + text(wrap.after)


@cache
def _compile(jinja_text: str) -> Template:
    # The environment of transformers.utils.chat_template_utils and of llama-cpp-python's Jinja2ChatFormatter.
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    return environment.from_string(jinja_text)


def _tojson(value: Any, indent: int | None = None) -> str:
    """As in transformers and llama.cpp; Jinja's own writes `<` as an HTML page needs it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
