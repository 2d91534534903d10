"""A template with a model's special tokens filled in: what stands around each text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import Definition, ToolDefinition
from orchestrator.chat_template.source import Mark, Slots
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json
from orchestrator.lib.sequences import first_difference


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
    alike = [first_difference(user.before, user.after[at:]) for at in range(len(user.after))]
    longest = max(alike, default=0)
    last = max((at for at, characters in enumerate(alike) if characters == longest), default=0)
    return user.after[last:] if longest > 1 else ""


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
