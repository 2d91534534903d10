"""What a model saw in training: its template, system text and thinking, and the prompts they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.registry import Definition, TemplateName, definition
from orchestrator.chat_template.source import template_for_model
from orchestrator.chat_template.turns import SpecialTokens, special_tokens, stop_words
from orchestrator.lib.errors import InputError
from orchestrator.models.saves import Saves

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from orchestrator.chat_template.jinja import Message


@dataclass(frozen=True, slots=True)
class Fact:
    """A value, and where it was read."""

    value: Any
    source: str

    def __str__(self) -> str:
        return f"{self.value} ({self.source})"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question as the model was trained to be asked it."""

    text: str
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Trained:
    """How a model was trained."""

    saves: Saves
    template: Fact
    thinking: bool | None
    """None where the template does not reason."""
    system: Fact
    """The text for conversations that bring none."""
    folder: Path
    """Of the tokenizer."""

    @property
    def shape(self) -> Definition:
        """The template, with the system text of this training."""
        return definition(self.template.value).with_default_system(self.system.value)

    @property
    def tokens(self) -> SpecialTokens:
        """BOS and EOS."""
        return special_tokens(self.folder)

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> tuple[list[Prompt], PreTrainedTokenizerBase]:
        """The prompt of each conversation, and the tokenizer that made them; LLaMA-Factory's import takes seconds."""
        from orchestrator.chat_template.encode import Encoder, decoded, load_tokenizer

        tokenizer = load_tokenizer(self.folder)
        encoder = Encoder(self.template.value, tokenizer, self.thinking is not False, self.system.value)

        def prompt(conversation: Sequence[Message], served: str) -> Prompt:
            ids = encoder.prompt_ids(conversation)
            return Prompt(decoded(tokenizer, ids, lambda: served), ids)

        return list(map(prompt, conversations, self._served(conversations))), tokenizer

    def stop(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """What ends an answer, as far as the tokenizer knows it for one token."""
        words = stop_words(self.shape, self.tokens)
        return [word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) == 1]

    def _served(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        from orchestrator.chat_template.jinja import jinja_template, render_messages
        from orchestrator.chat_template.spaces import spaced, spacing_of

        shape = spaced(self.shape, spacing_of(self.folder))
        text = jinja_template(shape, self.tokens, self.thinking is not False)
        return [render_messages(text, conversation, self.tokens) for conversation in conversations]


def read(saves: Saves, template: str | None = None, system: str | None = None) -> Trained:
    """How a model was trained, as far as its folder tells; `template` is the user's word for it.

    `system` is a text that all training rows share. Raises InputError where nothing tells the template, or where there
    is no tokenizer.
    """
    chosen = _template(saves, template)
    shape = definition(chosen.value)
    folder = saves.tokenizer_folder()
    if folder is None:
        base = f", and its base model {saves.base!r} is not on this machine" if saves.base else ""
        raise InputError(
            f"{saves.folder.name} has no tokenizer{base}",
            "Copy tokenizer.json and tokenizer_config.json of the base model into the folder.",
        )
    thinking = saves.arguments.get("enable_thinking", True) is not False if shape.reasons else None
    return Trained(saves, chosen, thinking, _system(saves, shape, system), folder)


def _template(saves: Saves, given: str | None) -> Fact:
    if given:
        return Fact(given, "--template")
    if saves.arguments.get("template"):
        name = TemplateName(str(saves.arguments["template"]), saves.arguments.get("tool_format"))
        return Fact(str(name), saves.arguments_from)
    if saves.base and (known := template_for_model(saves.base)):
        return Fact(known, "as LLaMA-Factory names it for the base model; no YAML of the training says so")
    raise InputError(
        f"nothing in {saves.folder.name} says with which template it was trained",
        "Name the training's YAML with --config FILE, or the template with --template NAME.",
    )


def _system(saves: Saves, shape: Definition, shared: str | None) -> Fact:
    if saves.arguments.get("default_system") is not None:
        return Fact(str(saves.arguments["default_system"]), f"default_system in {saves.arguments_from}")
    if shared:
        return Fact(shared, "the same in all rows")
    return Fact(shape.default_system, f"of template {shape.name}")
