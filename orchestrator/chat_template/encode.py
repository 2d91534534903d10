"""What the model sees in training: token ids from LLaMA-Factory's own encoder, whose import takes seconds."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template.jinja import Message
from orchestrator.chat_template.messages import to_turns
from orchestrator.chat_template.registry import TemplateName, tool_definition
from orchestrator.chat_template.tool_formats import told_to_training
from orchestrator.chat_template.tools import ToolError
from orchestrator.lib.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tool = Mapping[str, Any]

_ROLES: Mapping[str, str] = {"function_call": "function"}
"""Ours → LLaMA-Factory's (llamafactory/data/data_utils.py); the others have the same name in both."""


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer as llamafactory/model/loader.py loads it; of the model's own code only where that is trusted."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        str(folder), use_fast=True, padding_side="right", trust_remote_code=trust_remote_code
    )


class Encoder:
    """A template of LLaMA-Factory for one tokenizer, which it may give another EOS and more special tokens."""

    def __init__(
        self, template: str, tokenizer: PreTrainedTokenizerBase, thinking: bool, default_system: str | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = _template(template, tokenizer, thinking)
        self._tools = tool_definition(template)
        if default_system is not None:
            self._template.default_system = default_system

    def prompt_ids(self, conversation: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """The ids before the answer to the last question, or to what tools answered last.

        `tools` are in the canonical form; answers may be calls, which tools answer in messages of their own.
        """
        rest = self._turns(conversation)
        system = rest.pop(0)["content"] or None if rest and rest[0]["role"] == "system" else None
        roles = [turn["role"] for turn in rest]
        asks, answers = {"user", "observation"}, {"assistant", "function_call"}
        if len(rest) % 2 == 0 or not {*roles[::2]} <= asks or not {*roles[1::2]} <= answers:
            raise InputError(f"a conversation goes user, assistant, …, user; this one goes {', '.join(roles)}")
        turns = self._in_their_words([*rest, {"role": "assistant", "content": ""}])
        prompt, _ = self._template.encode_oneturn(self._tokenizer, turns, *self._told(system, tools))
        return list(prompt)

    def answer_text(self, turn: Message) -> str:
        """The text that training teaches for an answer, calls in the template's own words; without its end."""
        if turn["role"] != "function_call":
            return str(turn["content"])
        words = {"thought_words": self._template.thought_words, "tool_call_words": self._template.tool_call_words}
        made = self._template.format_function
        bare = copy.copy(made)
        bare.slots = ["{{content}}"]
        [text] = bare.apply(content=turn["content"], **words if self._tools.text_beside_calls else {})
        return str(text)

    def row_length(self, turns: Sequence[Message], system: str, tools: str) -> int:
        """The tokens of a whole row as training sees it before it cuts any off: tools, calls and what they gave too.

        As `_encode_data_example` of llamafactory/data/processor/supervised.py counts them.
        """
        told = self._told(system or None, json.loads(tools) if tools else ())
        pairs = self._template.encode_multiturn(self._tokenizer, self._in_their_words(turns), *told)
        return sum(len(asked) + len(answered) for asked, answered in pairs) + bool(self._template.efficient_eos)

    def _turns(self, conversation: Sequence[Message]) -> list[dict[str, str]]:
        try:
            return to_turns(conversation, self._tools.call_words)
        except ToolError as error:
            raise InputError(str(error), "A call is {name, arguments}, its arguments a JSON object.") from None

    def _told(self, system: str | None, tools: Sequence[Tool]) -> tuple[str | None, str | None]:
        """The system text and the tools as training is given them."""
        return told_to_training(self._tools.format, system, tools, self._template.default_system)

    @staticmethod
    def _in_their_words(turns: Sequence[Message]) -> list[dict[str, str]]:
        return [{"role": _ROLES.get(turn["role"], turn["role"]), "content": str(turn["content"])} for turn in turns]


def _template(name: str, tokenizer: PreTrainedTokenizerBase, thinking: bool) -> Any:
    chosen = TemplateName.of(name)
    with _quiet():
        from llamafactory.data.template import TEMPLATES, get_template_and_fix_tokenizer

        if chosen.template not in TEMPLATES:
            raise InputError(f"LLaMA-Factory has no template {name!r}")
        arguments = SimpleNamespace(
            template=chosen.template,
            train_on_prompt=False,
            tool_format=chosen.tool_format,
            default_system=None,
            enable_thinking=thinking,
            preserve_thinking=False,
        )
        shared = TEMPLATES[chosen.template]  # LLaMA-Factory writes another tool format into this one
        own = {part: getattr(shared, part) for part in ("format_function", "format_tools")}
        try:
            return copy.copy(get_template_and_fix_tokenizer(tokenizer, arguments))
        finally:
            vars(shared).update(own)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LLaMA-Factory reports every special token it sets, on a logger of its own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def decoded(tokenizer: Any, ids: list[int], served: Callable[[], str]) -> str:
    """A text that the tokenizer of training turns into these tokens: the decoded one, or where that one does not lead
    back, as with SentencePiece and its spaces, the served one if it does."""

    def leads_back(text: str) -> bool:
        return list(tokenizer.encode(text, add_special_tokens=False)) == list(ids)

    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return text if leads_back(text) or not leads_back(other := served()) else other
