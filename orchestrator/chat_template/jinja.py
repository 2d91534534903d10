"""The Jinja chat template that goes into the merged model, and from there into the GGUF.

It has to run in transformers' sandbox, in llama-cpp-python and in llama.cpp's own engine, so it keeps to `set`, `if`,
`for`, `+` and `in`, and writes every text as a string literal: no engine's trimming of white space can touch it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.chat_template.registry import Definition
from orchestrator.chat_template.turns import SpecialTokens, Turns, Wrap, turns

if TYPE_CHECKING:
    from jinja2 import Template

Message = Mapping[str, str]

_READ_SYSTEM = (
    "{% set rest = messages %}"
    "{% if messages and messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% if messages[0]['content'] %}{% set system = messages[0]['content'] %}{% endif %}{% endif %}"
)


def jinja_template(definition: Definition, tokens: SpecialTokens, thinking: bool) -> str:
    """The chat template, BOS included: those who render one tell the tokenizer to add none.

    It takes `messages` and `add_generation_prompt`; the latter only matters to the empty thought, since the start of
    the answer's turn belongs to the question in LLaMA-Factory's templates.
    """
    written = turns(definition, tokens, thinking)
    parts = [f"{{% set system = {_quote(written.default_system)} %}}", _READ_SYSTEM]
    if written.prefix:
        parts.append(f"{{{{ {_quote(written.prefix)} }}}}")
    if not written.system_in_first_user_turn:
        parts.append(f"{{% if system %}}{{{{ {_around(written.system, 'system')} }}}}{{% endif %}}")
    parts.append("{% for message in rest %}{% set text = message['content'] %}")
    parts.append(f"{{% if message['role'] == 'user' %}}{_user(written)}")
    parts.append(f"{{% elif message['role'] == 'assistant' %}}{_assistant(written)}{{% endif %}}{{% endfor %}}")
    return "".join(parts)


def render_messages(
    jinja_text: str, messages: Sequence[Message], tokens: SpecialTokens, add_generation_prompt: bool = True
) -> str:
    """The text that a chat template makes of a conversation, in the same sandbox as in transformers."""
    return _compile(jinja_text).render(
        messages=list(messages),
        bos_token=tokens.bos or "",
        eos_token=tokens.eos or "",
        add_generation_prompt=add_generation_prompt,
    )


def _user(written: Turns) -> str:
    around = f"{{{{ {_around(written.user, 'text')} }}}}"
    if written.system_in_first_user_turn:
        system = _around(written.system, "system")
        around = f"{{% if loop.first and system %}}{{% set text = {system} + text %}}{{% endif %}}{around}"
    if written.empty_thought:
        wanted = "loop.last and add_generation_prompt"
        if written.thinking:  # the variable by which callers of Qwen3 and its kin ask for no thinking
            wanted += " and enable_thinking is defined and not enable_thinking"
        around += f"{{% if {wanted} %}}{{{{ {_word(written, written.empty_thought)} }}}}{{% endif %}}"
    return around


def _assistant(written: Turns) -> str:
    """An answer. Thoughts of earlier ones are taken out, as in training.

    One that thinks writes the `reasoning_content` of the last answer: llama.cpp's server renders a template with and
    without it to see whether the model can think, and asks it not to where it cannot (common/chat-diff-analyzer.cpp).
    """
    around = f"{{{{ {_around(written.assistant, 'text')} }}}}"
    if written.thought_words is None:
        return around
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
    return f"{earlier}{last}{{% endif %}}{around}"


def _word(written: Turns, text: str) -> str:
    """A text with the words around a thought as an expression.

    Servers look for these words in the template to tell whether a model can think, so that one which was trained not to
    has them in two pieces. Ollama reads the ability off `<think>` and `</think>` (server/images.go).
    """
    if written.thinking or written.thought_words is None:
        return _quote(text)
    for word in filter(None, (word.strip() for word in written.thought_words)):
        text = text.replace(word, f"{word[:2]}\0{word[2:]}")
    return " + ".join(map(_quote, text.split("\0")))


def _around(wrap: Wrap, name: str) -> str:
    """An expression: the two texts with a variable between them."""
    return " + ".join([*map(_quote, filter(None, [wrap.before])), name, *map(_quote, filter(None, [wrap.after]))])


def _quote(text: str) -> str:
    """A Jinja string literal. Line ends are escaped, since Jinja makes the same of all kinds of them."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(escapes.get(character, character) for character in text) + "'"


@cache
def _compile(jinja_text: str) -> Template:
    # The environment of transformers.utils.chat_template_utils and of llama-cpp-python's Jinja2ChatFormatter.
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    return environment.from_string(jinja_text)
