"""A template with its special tokens filled in: what stands before and after each text of a conversation."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.chat_template.registry import Definition, Mark, Slots
from orchestrator.chat_template.tokens import SpecialTokens


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


def end_token(definition: Definition, tokens: SpecialTokens) -> str:
    """EOS after LLaMA-Factory's `fix_special_tokens`, which may replace the tokenizer's, and adds one if need be."""
    if definition.replace_eos:
        return definition.stop_words[0]
    return tokens.eos or "<|endoftext|>"


def stop_words(definition: Definition, tokens: SpecialTokens) -> list[str]:
    """The texts that end an answer: EOS and the stop words of the template, as `get_stop_token_ids` has them."""
    return list(dict.fromkeys([end_token(definition, tokens), *definition.stop_words]))


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
