"""What training gives the model to answer, for comparison with what is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.jinja import Message


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
