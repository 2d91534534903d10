"""Reasoning text that a model writes before its answer, and that no metric may see."""

from __future__ import annotations

import re

# The pairs that LLaMA-Factory's templates use (`thought_words` in its data/template.py).
_PAIRS = (
    ("<think>", "</think>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)


def strip_thinking(text: str) -> str:
    """The answer alone, without surrounding white space.

    Besides whole blocks it removes one that never closes (the answer ran out of tokens) and everything up to an
    orphan closing tag (the opening one was part of the prompt).
    """
    for opening, closing in _PAIRS:
        if opening in text or closing in text:
            text = _strip(text, opening, closing)
    return text.strip()


def split_thinking(text: str) -> tuple[str, str]:
    """What was thought, and the answer, both without tags and surrounding white space.

    Servers that tell the two apart trim them in ways of their own; so compared are these two.
    """
    for opening, closing in _PAIRS:
        if opening in text or closing in text:
            return text.rpartition(opening)[2].partition(closing)[0].strip(), strip_thinking(text)
    return "", text.strip()


def has_thinking(text: str) -> bool:
    """Whether `strip_thinking` would take reasoning away."""
    return any(tag in text for pair in _PAIRS for tag in pair)


def _strip(text: str, opening: str, closing: str) -> str:
    text = re.sub(re.escape(opening) + ".*?" + re.escape(closing), "", text, flags=re.DOTALL)
    text = text.rpartition(closing)[2]
    return text.partition(opening)[0]
