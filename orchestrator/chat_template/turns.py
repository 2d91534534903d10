"""A template with a model's special tokens filled in: what stands around each text, and what none can serve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import (
    Definition,
    TemplateName,
    ToolDefinition,
    definition,
    tool_definition,
)
from orchestrator.chat_template.source import Mark, Slots
from orchestrator.chat_template.tool_formats import READ_EVERYWHERE, unknown, unread
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json


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
    if reason := unknown(tools.format, tools.call_format) or _not_with_qwens(TemplateName.of(name), thinking):
        return reason
    if not written.result.after or written.result.after.endswith(" "):
        return "a server's tokenizer joins an answer to the result before it, which training encodes apart"
    return None


_SERVER = "llama.cpp's server, which Ollama starts too,"
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


def _ends(shape: Definition, after: str, tokens: SpecialTokens) -> bool:
    """Whether a word that stops the model stands behind a call, or what stands behind every answer."""
    like_answers = after and after == turns(shape, tokens, thinking=True).assistant.after
    return shape.efficient_eos or bool(like_answers) or any(word in after for word in stop_words(shape, tokens))


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The texts of a tokenizer's begin and end tokens; None where it has none."""

    bos: str | None
    eos: str | None


def special_tokens(model_folder: Path) -> SpecialTokens:
    """BOS and EOS of a model folder. Raises MissingError when it holds no tokenizer_config.json."""
    file = model_folder / "tokenizer_config.json"
    if not file.is_file():
        raise MissingError(f"{model_folder} has no tokenizer_config.json", "Fetch the base model again.")
    config = value if isinstance(value := read_json(file), dict) else {}
    return SpecialTokens(bos=_text(config.get("bos_token")), eos=_text(config.get("eos_token")))


def converter_adds_bos(model_folder: Path) -> bool:
    """Whether a GGUF converted from the folder makes llama.cpp and Ollama start every prompt with BOS.

    As its gguf package reads the tokenizer's files; where they say nothing, llama.cpp's own default holds, which is yes
    for SentencePiece vocabularies only.
    """
    from gguf import SpecialVocab

    found = SpecialVocab(model_folder).add_special_token.get("bos")
    if found is not None:
        return bool(found)
    tokenizer = model_folder / "tokenizer.json"
    if tokenizer.is_file():
        return bool(read_json(tokenizer).get("model", {}).get("byte_fallback"))
    return (model_folder / "tokenizer.model").is_file()


def _text(token: Any) -> str | None:
    """A token is written as text, or as the fields of an AddedToken."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


@dataclass(frozen=True, slots=True)
class Wrap:
    """The texts around a content."""

    before: str
    after: str

    def around(self, content: str) -> str:
        """The content in its place."""
        return self.before + content + self.after


@dataclass(frozen=True, slots=True)
class Turns:
    """Everything that a served template has to write, in the order LLaMA-Factory's `Template._encode` writes it."""

    prefix: str
    system: Wrap
    user: Wrap
    """The start of the answer's turn is part of what follows the question."""
    assistant: Wrap
    default_system: str
    system_in_first_user_turn: bool
    empty_thought: str
    """What training puts behind the last question when the model is not to think; "" for other templates."""
    thought_words: tuple[str, str] | None
    """What surrounds a thought that is taken out of earlier answers; None for templates that do not reason."""
    thinking: bool


def turns(definition: Definition, tokens: SpecialTokens, thinking: bool) -> Turns:
    """The texts of a template for one tokenizer and thinking mode."""
    tokens = SpecialTokens(bos=tokens.bos, eos=end_token(definition, tokens))
    return Turns(
        prefix=_fill(definition.prefix, tokens),
        system=_wrap(definition.system, tokens),
        user=_wrap(definition.user, tokens),
        assistant=_wrap(definition.assistant, tokens),
        default_system=definition.default_system,
        system_in_first_user_turn=definition.system_in_first_user_turn,
        empty_thought=definition.empty_thought if definition.reasons else "",
        thought_words=definition.thought_words if definition.reasons else None,
        thinking=thinking,
    )


@dataclass(frozen=True, slots=True)
class ToolTurns:
    """What stands around tools, calls, and what tools answer."""

    declared: Wrap
    call: Wrap
    result: Wrap


def tool_turns(definition: Definition, tools: ToolDefinition, tokens: SpecialTokens) -> ToolTurns:
    """The texts of a template with tools for one tokenizer."""
    tokens = SpecialTokens(bos=tokens.bos, eos=end_token(definition, tokens))
    return ToolTurns(*(_wrap(slots, tokens) for slots in (tools.declared, tools.call, tools.result)))


def end_token(definition: Definition, tokens: SpecialTokens) -> str:
    """EOS after LLaMA-Factory's `fix_special_tokens`, which may replace the tokenizer's, and adds one if need be."""
    if definition.replace_eos:
        return definition.stop_words[0]
    return tokens.eos or "<|endoftext|>"


def stop_words(definition: Definition, tokens: SpecialTokens) -> list[str]:
    """The texts that end an answer: EOS and the stop words of the template, as `get_stop_token_ids` has them."""
    return list(dict.fromkeys([end_token(definition, tokens), *definition.stop_words]))


def answer_header(user: Wrap) -> str:
    """The end of the text after a question that begins the answer's turn; "" where nothing tells the two apart.

    It begins as the question's own turn does: `<|im_start|>assistant` as `<|im_start|>user`.
    """
    alike = [_alike(user.before, user.after[at:]) for at in range(len(user.after))]
    longest = max(alike, default=0)
    last = max((at for at, characters in enumerate(alike) if characters == longest), default=0)
    return user.after[last:] if longest > 1 else ""


def _alike(first: str, second: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def starts_with_bos(definition: Definition, tokens: SpecialTokens) -> bool:
    """Whether every training prompt of a template begins with BOS, so that llama.cpp may add it as well as we."""
    written = turns(definition, tokens, thinking=True)
    if tokens.bos is None:
        return False
    return all(text.startswith(tokens.bos) for text in first_texts(written))


def first_texts(written: Turns) -> list[str]:
    """The texts that a prompt may begin with: with a system text, and without one."""
    if written.prefix:
        return [written.prefix]
    if written.system_in_first_user_turn:
        return [written.user.before]
    with_system, without = written.system.before, written.user.before
    return [with_system] if written.default_system else [with_system, without]


def _wrap(slots: Slots, tokens: SpecialTokens) -> Wrap:
    middle = slots.index(Mark.CONTENT)
    return Wrap(_fill(slots[:middle], tokens), _fill(slots[middle + 1 :], tokens))


def _fill(slots: Slots, tokens: SpecialTokens) -> str:
    known = {Mark.BOS: tokens.bos or "", Mark.EOS: tokens.eos or ""}
    return "".join(slot if isinstance(slot, str) else known.get(slot, "") for slot in slots)
