"""The TEMPLATE of an Ollama Modelfile: Go's text/template, over `.System` and `.Messages`.

Ollama collects all system messages in `.System`, merges neighbours of one role, renders once, and lets the model go on
where the text ends. The system text that training falls back on is part of the template, so no SYSTEM line is needed.
"""

from __future__ import annotations

import re

from orchestrator.chat_template.registry import Definition
from orchestrator.chat_template.turns import SpecialTokens, Turns, starts_with_bos, turns
from orchestrator.lib.errors import InputError
from orchestrator.lib.render import survives_modelfile

_MEANS_SOMETHING = re.compile(r'\{\{|\{\Z|"""')
_IS_LAST = "eq (len (slice $.Messages $i)) 1"


def ollama_template(definition: Definition, tokens: SpecialTokens, thinking: bool, bos_added_by_runtime: bool) -> str:
    """The TEMPLATE text. BOS at the very start is left to the runtime where that adds it.

    Raises InputError when the runtime would add a BOS that training did not have.
    """
    written = turns(definition, tokens, thinking)
    bos = (tokens.bos or "") if bos_added_by_runtime else ""
    if bos_added_by_runtime and not starts_with_bos(definition, tokens):
        raise InputError(
            f"template {definition.name!r} trains without BOS at the start, and llama.cpp would add {tokens.bos!r}",
            "Set add_bos_token to false in the merged model's tokenizer_config.json before converting it.",
        )
    unstarted = _question_starts_prompt(written, bos)
    system = "" if written.system_in_first_user_turn else _system(written, "" if written.prefix else bos)
    return "".join(
        [
            "{{ $first := true }}" if unstarted or written.system_in_first_user_turn else "",
            literal(written.prefix.removeprefix(bos)),
            system,
            '{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}',
            _user(written, bos, unstarted),
            '{{ else if eq .Role "assistant" }}',
            _assistant(written),
            "{{ end }}{{ end }}",
        ]
    )


def literal(text: str) -> str:
    """A text as part of a TEMPLATE; whatever Go or a Modelfile would take for something else becomes a Go string.

    A Modelfile has no escapes of its own, ends a text at three quotes, and Ollama's parser drops what Go calls
    unprintable, such as the full-width space of Chinese text or the joiner inside an emoji.
    """
    safe = _MEANS_SOMETHING.sub(lambda found: _go_string(found[0]), text)
    return "".join(character if survives_modelfile(character) else _go_string(character) for character in safe)


def _go_string(text: str) -> str:
    return '{{ "' + "".join(f"\\U{ord(character):08x}" for character in text) + '" }}'


def _question_starts_prompt(written: Turns, bos: str) -> str:
    """The Go condition for "nothing stands before this question", or "" where that needs no asking."""
    if not bos or written.prefix:
        return ""
    if written.system_in_first_user_turn:
        return "$first"
    return "" if written.default_system else "and $first (not $.System)"


def _system(written: Turns, bos: str) -> str:
    given = literal(written.system.before.removeprefix(bos)) + "{{ $.System }}" + literal(written.system.after)
    default = literal(written.system.around(written.default_system).removeprefix(bos))
    otherwise = f"{{{{ else }}}}{default}" if written.default_system else ""
    return f"{{{{ if $.System }}}}{given}{otherwise}{{{{ end }}}}"


def _user(written: Turns, bos: str, unstarted: str) -> str:
    before = literal(written.user.before)
    if unstarted:
        rest = literal(written.user.before.removeprefix(bos))
        before = f"{{{{ if {unstarted} }}}}{{{{ else }}}}{literal(bos)}{{{{ end }}}}{rest}"
    if written.system_in_first_user_turn:
        before += f"{{{{ if $first }}}}{_system(written, '')}{{{{ end }}}}"
    if unstarted or written.system_in_first_user_turn:
        before += "{{ $first = false }}"
    return f"{before}{{{{ .Content }}}}{literal(written.user.after)}{_thought(written)}"


def _thought(written: Turns) -> str:
    """The empty thought behind the last question: always when trained so, else when the caller asks for no thinking."""
    if not written.empty_thought:
        return ""
    wanted = f"and ({_IS_LAST}) $.IsThinkSet (not $.Think)" if written.thinking else _IS_LAST
    return f"{{{{ if {wanted} }}}}{literal(written.empty_thought)}{{{{ end }}}}"


def _assistant(written: Turns) -> str:
    """An earlier answer; the last message stays open, so that the model continues it.

    Training shows no thoughts of earlier answers. A thinking template names the words around a thought all the same,
    where it is never executed: Ollama looks there for how to tell a thought from the answer.
    """
    before, after = literal(written.assistant.before), literal(written.assistant.after)
    words = ""
    if written.thought_words and written.thinking:
        opening, closing = map(literal, written.thought_words)
        words = f"{{{{ if false }}}}{opening}{{{{ .Thinking }}}}{closing}{{{{ end }}}}"
    end = f"{{{{ if not ({_IS_LAST}) }}}}{after}{{{{ end }}}}" if after else ""
    return f"{words}{before}{{{{ .Content }}}}{end}"
