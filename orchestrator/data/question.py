"""What a held-out row asks, and the answer it expects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.data import canonical
from orchestrator.data.conversation import Conversation, Message

if TYPE_CHECKING:
    from orchestrator.chat_template.encode import Encoder


def question(row: Conversation, template: str) -> list[dict[str, Any]]:
    """The conversation up to the answer that is asked for, as OpenAI's messages."""
    return list(canonical.messages(row if row.chosen else replace(row, messages=row.messages[:-1]), template))


def label(encoder: Encoder, row: Conversation) -> str:
    """The right answer as training teaches it."""
    last = row.messages[-1]
    return row.chosen or encoder.answer_text({"role": last.role, "content": last.content})


def prompt_text(tokenizer: Any, ids: list[int], served: Callable[[], str]) -> str:
    """A text that the tokenizer of training turns into these tokens: the decoded one, or where that one does not lead
    back, as with SentencePiece and its spaces, the served one if it does."""

    def leads_back(text: str) -> bool:
        return list(tokenizer.encode(text, add_special_tokens=False)) == list(ids)

    decoded = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return decoded if leads_back(decoded) or not leads_back(other := served()) else other


def answered(row: Conversation) -> Conversation:
    """The row with its good answer as the last turn, and no other."""
    answer = (Message("assistant", row.chosen),) if row.chosen else ()
    return replace(row, messages=(*row.messages, *answer), chosen="", rejected="", desirable=None)
