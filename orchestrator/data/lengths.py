"""How long rows are in the tokens of training, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.data.canonical import has_tools
from orchestrator.data.conversation import Conversation, Message
from orchestrator.lib.errors import InputError

if TYPE_CHECKING:
    from orchestrator.chat_template.encode import Encoder

ENDING = 8
"""Tokens that a template may write around an answer: an empty thought, its end, and what follows."""


def length(encoder: Encoder, tokenizer: Any, row: Conversation) -> int:
    """Tokens of a row: its prompt as the template makes it, and its longest answer; or a text of a pretraining."""
    if has_tools(row):
        given = [text for text in (row.chosen, row.rejected) if text]
        answers = [(Message("assistant", text),) for text in given] if given else [()]
        turns = [[{"role": turn.role, "content": turn.content} for turn in row.messages + answer] for answer in answers]
        return max(encoder.row_length(each, row.system, row.tools) for each in turns)
    prompt = len(encoder.prompt_ids(row.question())) if row.answer else 0
    return prompt + _answer(tokenizer, row) + 1


def _answer(tokenizer: Any, row: Conversation) -> int:
    """Tokens of a row's longest answer, or of a pretraining's text."""
    texts = [row.answer or row.prompt, row.rejected]
    return max(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)


def with_loss(tokenizer: Any, row: Conversation, length: int) -> int:
    """At most so many of a row's tokens have a loss: those of its answer and what ends it, or where it has several
    answers or tools, all of its `length`."""
    several = sum(message.role != "user" for message in row.messages) > 1
    return length if several or has_tools(row) else min(length, _answer(tokenizer, row) + ENDING)


def require_short(lengths: list[int], rows: Sequence[Conversation], cutoff: int) -> None:
    """Raise InputError where rows are longer than training reads."""
    over = [(length, row) for length, row in zip(lengths, rows, strict=True) if length > cutoff]
    if over:
        length, row = max(over, key=lambda pair: pair[0])
        enough = -(-length // 64) * 64
        raise InputError(
            f"{len(over)} of {len(rows)} rows are longer than cutoff_len {cutoff}; the longest has {length} tokens "
            f"({row.source}, row {row.row}), and LLaMA-Factory would cut off the end of its prompt",
            f"Set train.cutoff_len to {enough}, shorten the rows, or accept tokens_over_cutoff under data.",
        )


def require_a_block(lengths: list[int], cutoff: int, packing: bool) -> None:
    """Raise InputError where a pretraining's texts are packed into blocks of cutoff_len and fill none: LLaMA-Factory
    would drop them."""
    if packing and sum(lengths) < cutoff:
        raise InputError(
            f"the training texts have {sum(lengths)} tokens, less than one block of cutoff_len {cutoff}",
            "Lower train.cutoff_len, or set train.packing to false.",
        )
