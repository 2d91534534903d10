"""The Jinja chat template that goes into the merged model, and from there into the GGUF.

It has to run in transformers' sandbox, in llama-cpp-python and in llama.cpp's own engine, so it keeps to `set`, `if`,
`for`, `+` and `in`, and writes every text as a string literal: no engine's trimming of white space can touch it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.messages import NEXT_RESULT, with_parsed_arguments
from orchestrator.chat_template.registry import Definition, ToolDefinition
from orchestrator.chat_template.tool_formats import quote, tool_format
from orchestrator.chat_template.turns import SpecialTokens, ToolTurns, Turns, Wrap, answer_header, tool_turns, turns

if TYPE_CHECKING:
    from jinja2 import Template

Message = Mapping[str, Any]
"""OpenAI's: role, content, and for tools tool_calls and tool_call_id."""

_READ_SYSTEM = (
    "{% set rest = messages %}"
    "{% if messages and messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% if messages[0]['content'] %}{% set system = messages[0]['content'] %}{% endif %}{% endif %}"
)
_FILLED = "{% set text = text if text else '' %}"


def jinja_template(
    definition: Definition, tokens: SpecialTokens, thinking: bool, tools: ToolDefinition | None = None
) -> str:
    """The chat template, BOS included: those who render one tell the tokenizer to add none.

    It takes `messages` and `add_generation_prompt`; the latter only matters to the empty thought, since the start of
    the answer's turn belongs to the question in LLaMA-Factory's templates. With `tools` it takes `tools`, too, in the
    canonical form, calls in answers, and turns of the role `tool`; without, servers take the model for one that knows
    none. Raises ValueError for a tool format that is not known (`turns.tool_refusal` says so before).
    """
    written = turns(definition, tokens, thinking)
    told = _Tools.of(tools, tool_turns(definition, tools, tokens)) if tools else None
    parts = [f"{{% set system = {quote(written.default_system)} %}}", _READ_SYSTEM]
    if written.prefix:
        parts.append(f"{{{{ {quote(written.prefix)} }}}}")
    if not written.system_in_first_user_turn:
        parts.append(told.system(written.system) if told else _system(written.system))
    parts.append("{% for message in rest %}{% set text = message['content'] %}")
    parts.append(f"{{% if message['role'] == 'user' %}}{_user(written, told)}")
    parts.append(f"{{% elif message['role'] == 'assistant' %}}{_assistant(written, told)}")
    parts.append(f"{{% elif message['role'] == 'tool' %}}{told.result(written)}" if told else "")
    parts.append("{% endif %}{% endfor %}")
    return "".join(parts)


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
        declared = f"{_text(self.written.declared.before)}{self.declare}{_text(self.written.declared.after)}"
        inner = f"{{{{ system }}}}{{% if tools %}}{declared}{{% endif %}}"
        return f"{{% if {wanted} %}}{_text(around.before)}{inner}{_text(around.after)}{{% endif %}}"

    def user(self, written: Turns) -> str:
        """A question with the system text and the tools in its turn."""
        told = self.system(written.system, "loop.first and (system or tools)")
        return f"{_text(written.user.before)}{told}{{{{ text }}}}{_after(written.user, written)}"

    def answer(self, answer: str) -> str:
        """An answer, which may be calls with a text in front of them."""
        around = self.written.call
        calls = f"{_text(around.before)}{{{{ text }}}}{self.call}{_text(around.after)}"
        return f"{{% if message['tool_calls'] %}}{calls}{{% else %}}{answer}{{% endif %}}"

    def result(self, written: Turns) -> str:
        """What tools answered: neighbours are one turn, as LLaMA-Factory makes of them."""
        around, neighbour = self.written.result, "rest[{}]['role'] == 'tool'"
        begun = f"{{% if loop.first or not {neighbour.format('loop.index0 - 1')} %}}{_text(around.before)}"
        ended = f"{{% if loop.last or not {neighbour.format('loop.index')} %}}{_after(around, written)}"
        ended += _thought(written, with_tools=True)
        between = f"{{% else %}}{_text(NEXT_RESULT)}{{% endif %}}"
        return f"{begun}{{% endif %}}{{{{ text }}}}{ended}{between}"


def _text(text: str) -> str:
    return f"{{{{ {quote(text)} }}}}" if text else ""


def _system(wrap: Wrap) -> str:
    return f"{{% if system %}}{{{{ {_around(wrap, 'system')} }}}}{{% endif %}}"


def _user(written: Turns, told: _Tools | None) -> str:
    if told and written.system_in_first_user_turn:
        return told.user(written) + _thought(written, with_tools=True)
    if told:
        around = f"{_text(written.user.before)}{{{{ text }}}}{_after(written.user, written)}"
    else:
        around = f"{{{{ {_around(written.user, 'text')} }}}}"
        if written.system_in_first_user_turn:
            system = _around(written.system, "system")
            around = f"{{% if loop.first and system %}}{{% set text = {system} + text %}}{{% endif %}}{around}"
    return around + _thought(written, with_tools=told is not None)


def _after(around: Wrap, written: Turns) -> str:
    """What follows a question, the start of the answer's turn where there is one, or one is asked for.

    llama.cpp's server renders a template with and without `add_generation_prompt` and expects what differs in front of
    each answer that it reads calls out of (common/parsers/*.cpp: `generation_prompt`).
    """
    header = answer_header(written.user)
    if not header or not around.after.endswith(header):
        return _text(around.after)
    ending = _text(around.after.removesuffix(header))
    return f"{ending}{{% if not loop.last or add_generation_prompt %}}{_text(header)}{{% endif %}}"


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
    return f"{{% if {wanted} %}}{{{{ {empty} }}}}{{% endif %}}"


def _assistant(written: Turns, told: _Tools | None) -> str:
    """An answer. Thoughts of earlier ones are taken out, as in training.

    One that thinks writes the `reasoning_content` of the last answer: llama.cpp's server renders a template with and
    without it to see whether the model can think, and asks it not to where it cannot (common/chat-diff-analyzer.cpp).
    """
    around = f"{{{{ {_around(written.assistant, 'text')} }}}}"
    if told:  # an answer of nothing but calls has no content, or none that is a text
        around = told.answer(around)
    if written.thought_words is None:
        return f"{_FILLED}{around}" if told else around
    opening, closing = (_word(written, word) for word in written.thought_words)
    cut = f"text.split({opening})[0] + text.split({closing})[-1]"
    has_thought = f"{opening} in text and {closing} in text"
    earlier = (
        f"{{% if not loop.last %}}{{% if {has_thought} %}}{{% set text = {cut} %}}{{% endif %}}"
        f"{{% set text = text.lstrip('\n') %}}"
    )
    last = ""
    if written.thinking:
        thought = f"{opening} + message['reasoning_content'] + {closing} + text"
        last = f"{{% elif message['reasoning_content'] %}}{{% set text = {thought} %}}"
    return f"{_FILLED if told else ''}{earlier}{last}{{% endif %}}{around}"


def _word(written: Turns, text: str, hidden: Sequence[str] | None = None) -> str:
    """A text with the words around a thought as an expression.

    Servers look for these words in the template to tell whether a model can think, so that one which was trained not to
    has them (or those of them that are `hidden`) in two pieces. Ollama reads the ability off `<think>` with `</think>`
    (server/images.go).
    """
    if written.thinking or written.thought_words is None:
        return quote(text)
    for word in filter(None, (word.strip() for word in (written.thought_words if hidden is None else hidden))):
        text = text.replace(word, f"{word[:2]}\0{word[2:]}")
    return " + ".join(map(quote, text.split("\0")))


def _around(wrap: Wrap, name: str) -> str:
    """An expression: the two texts with a variable between them."""
    return " + ".join([*map(quote, filter(None, [wrap.before])), name, *map(quote, filter(None, [wrap.after]))])


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
