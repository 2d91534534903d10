"""What the model sees in training: token ids from LLaMA-Factory's own encoder, whose import takes seconds."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.jinja import Message
from orchestrator.lib.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROLES = {"function_call": "function"}
"""Ours → LLaMA-Factory's (llamafactory/data/data_utils.py); the others have the same name in both."""


def training_prompt_ids(
    template: str,
    tokenizer_folder: Path,
    conversations: Sequence[Sequence[Message]],
    thinking: bool,
) -> list[list[int]]:
    """The prompt ids of each conversation, which ends with a question: what the model is given to answer.

    A leading system message wins over the template's default. Raises InputError for an unknown template, and for a
    conversation in which questions and answers do not alternate.
    """
    encoder = Encoder(template, load_tokenizer(tokenizer_folder), thinking)
    return [encoder.prompt_ids(conversation) for conversation in conversations]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as llamafactory/model/loader.py loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), use_fast=True, padding_side="right")


class Encoder:
    """A template of LLaMA-Factory for one tokenizer, which it may give another EOS and more special tokens."""

    def __init__(
        self, template: str, tokenizer: PreTrainedTokenizerBase, thinking: bool, default_system: str | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = copy.copy(_template(template, tokenizer, thinking))
        if default_system is not None:
            self._template.default_system = default_system

    def prompt_ids(self, conversation: Sequence[Message]) -> list[int]:
        """The ids before the answer to the last question."""
        rest = list(conversation)
        system = rest.pop(0)["content"] or None if rest and rest[0]["role"] == "system" else None
        roles = [message["role"] for message in rest]
        if len(rest) % 2 == 0 or roles != ["user", "assistant"] * (len(rest) // 2) + ["user"]:
            raise InputError(f"a conversation goes user, assistant, …, user; this one goes {', '.join(roles)}")
        answer = {"role": "assistant", "content": ""}
        prompt, _ = self._template.encode_oneturn(self._tokenizer, [*rest, answer], system)
        return list(prompt)

    def row_length(self, turns: Sequence[Message], system: str, tools: str) -> int:
        """The tokens of a whole row as training sees it before it cuts any off: tools, calls and what they gave too.

        As `_encode_data_example` of llamafactory/data/processor/supervised.py counts them.
        """
        messages = [{**turn, "role": _ROLES.get(turn["role"], turn["role"])} for turn in turns]
        pairs = self._template.encode_multiturn(self._tokenizer, messages, system or None, tools or None)
        return sum(len(asked) + len(answered) for asked, answered in pairs) + bool(self._template.efficient_eos)


def _template(name: str, tokenizer: PreTrainedTokenizerBase, thinking: bool) -> Any:
    with _quiet():
        from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer

        if name not in TEMPLATES:
            raise InputError(f"LLaMA-Factory has no template {name!r}")
        arguments = SimpleNamespace(
            template=name,
            train_on_prompt=False,
            tool_format=None,
            default_system=None,
            enable_thinking=thinking,
            preserve_thinking=False,
        )
        return get_template_and_fix_tokenizer(tokenizer, arguments)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LLaMA-Factory reports every special token it sets, on a logger of its own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
