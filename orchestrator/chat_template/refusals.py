"""Templates that no text template can serve as they were trained, and why."""

from __future__ import annotations

from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.tokens import SpecialTokens
from orchestrator.chat_template.turns import turns


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
