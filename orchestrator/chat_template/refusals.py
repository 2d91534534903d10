"""What cannot be trained, or served as it was trained, and why: templates, tools, calls that no server reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from orchestrator.chat_template.registry import Definition, TemplateName, definition, tool_definition
from orchestrator.chat_template.tool_formats import tool_format
from orchestrator.chat_template.turns import SpecialTokens, stop_words, tool_turns, turns

_SERVER = "llama.cpp's server, which Ollama starts too,"


def refusal(name: str, thinking: bool, multi_turn: bool = False) -> str | None:
    """Why a template cannot be served faithfully, or None. Raises InputError for an unknown template.

    `multi_turn` asks for conversations with earlier answers as well. Training encodes a question and its answer apart;
    a server encodes the whole text, and where a space or nothing stands between them its tokenizer joins the two.
    """
    chosen = definition(name)
    written = turns(chosen, SpecialTokens(bos=None, eos="<eos>"), thinking)
    if not written.assistant.after and not chosen.efficient_eos:
        return "training never shows how an answer ends, so the served model would not stop"
    if multi_turn and (not written.user.after or written.user.after.endswith(" ")):
        return "a server's tokenizer joins earlier answers to the text before them, which training encodes apart"
    return None


@cache
def tool_refusal(name: str, thinking: bool) -> str | None:
    """Why a template cannot be served faithfully to a model with tools, or None. Raises InputError for an unknown one.

    Such a model is given earlier answers (its own calls) and what its tools answered.
    """
    shape, tools = definition(name), tool_definition(name)
    tokens = SpecialTokens(bos=None, eos="<eos>")
    written = tool_turns(shape, tools, tokens)
    if reason := refusal(name, thinking, multi_turn=True):
        return reason
    if not _ends(shape, written.call.after, tokens):
        return "training never shows how a call ends, so the served model would not stop"
    if reason := _unwritten(tools.format, tools.call_format) or _not_with_qwens(TemplateName.of(name), thinking):
        return reason
    if not written.result.after or written.result.after.endswith(" "):
        return "a server's tokenizer joins an answer to the result before it, which training encodes apart"
    return None


def _unwritten(*formats: str) -> str | None:
    missing = next((name for name in formats if tool_format(name) is None), None)
    return missing and f"the tool format {missing!r} is not written in Jinja here"


def _ends(shape: Definition, after: str, tokens: SpecialTokens) -> bool:
    """Whether a word that stops the model stands behind a call, or what stands behind every answer."""
    like_answers = after and after == turns(shape, tokens, thinking=True).assistant.after
    return shape.efficient_eos or bool(like_answers) or any(word in after for word in stop_words(shape, tokens))


def row_refusal(formats: Iterable[str], tools: Sequence[Mapping[str, Any]], calls: Sequence[int]) -> str | None:
    """Why LLaMA-Factory cannot train on a row in these formats, or None; `calls` counts those of each answer."""
    for name in formats:
        found = tool_format(name)
        if found and not found.parallel and max(calls, default=0) > 1:
            return f"the tool format {name!r} knows one call in an answer, not {max(calls)}"
        if name == "default" and (path := next(_odd_for_default(tools), None)):
            return f"the tool format 'default' joins the values of an enum as texts, and those of {path} are none"
    return None


def _odd_for_default(tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for tool in tools:
        function = tool["function"]
        for name, schema in function["parameters"]["properties"].items():
            if not all(isinstance(value, str) for value in schema.get("enum", ())):
                yield f"{function['name']}.{name}"


# ---- tools and calls that servers read

READ_EVERYWHERE = "qwen"
"""The format that Ollama, llama.cpp's server and LLaMA-Factory read calls from: JSON between tags."""
_UNREAD = {
    "default": "once tools are offered, it answers with an error whatever the model wrote",
    "glm4": "once tools are offered, it answers a text with an error",
    "glm4_moe": "once tools are offered, it answers with an error whatever the model wrote",
    "minimax2": "it takes several arguments for one, and answers most texts with an error",
    "seed_oss": "a call is an error or text there",
}


def unread(call_format: str) -> str | None:
    """Why llama.cpp's server, which Ollama starts too, cannot read calls in a format, or None where it can."""
    reason = _UNREAD.get(call_format)
    return reason and f"{_SERVER} cannot read calls of the form {call_format}: {reason}"


@cache
def read_by_servers(name: str, thinking: bool) -> str | None:
    """The template if servers read its calls, or with `qwen`'s tool format; None where neither can be served.

    What marks whose turn it is stays the model's own; only how tools are told and calls are written is qwen's.
    """
    candidates = (name, str(TemplateName(TemplateName.of(name).template, READ_EVERYWHERE)))
    return next(
        (one for one in candidates if not (unread(tool_definition(one).call_format) or tool_refusal(one, thinking))),
        None,
    )


_NOT_WITH_QWENS = {
    "chatglm3": "a server's tokenizer joins the tools to the text before them, which training encodes apart",
    "cohere": f"{_SERVER} answers a text with an error",
    "gpt_oss": f"{_SERVER} reads calls in this template's own form only",
}
_NOT_WITH_QWENS_THINKING = dict.fromkeys(
    ("gemma4", "gemma4n", "kimi_vl"), f"{_SERVER} takes an answer without a thought for a thought"
)
"""Found by `template check` of every template with qwen's tools; the slow tests compare those that are not refused."""


def _not_with_qwens(name: TemplateName, thinking: bool) -> str | None:
    found = _NOT_WITH_QWENS | (_NOT_WITH_QWENS_THINKING if thinking else {})
    return found.get(name.template) if name.tool_format == READ_EVERYWHERE else None
