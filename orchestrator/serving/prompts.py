"""The prompts that a server makes of the held-out rows, compared with training's: the text first, then its length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.lib.sequences import first_difference
from orchestrator.serving.endpoint import Message, Tools, conversation
from orchestrator.serving.http import Endpoint, post, try_post

SHOWN = 24
"""Characters of either text that a difference quotes."""
Row = Mapping[str, Any]
"""A line of data/prompts.jsonl: {id, messages, text, ids, …}; `text` and `ids` are None where training has no word."""
Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a server tells about the prompt it made of a row; None for what it does not tell."""

    text: str | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many prompts a server told, and how many of them are those of training."""

    texts: int
    equal_texts: int
    counted: int
    """Rows for which it told the number of tokens."""
    equal_counts: int
    difference: str = ""
    """The first one, in words."""

    @property
    def passed(self) -> bool:
        """Whether nothing that was told differs from training."""
        return self.equal_texts == self.texts and self.equal_counts == self.counted

    def __str__(self) -> str:
        texts = f"{self.equal_texts} of {self.texts} prompts are those of training, character by character"
        counts = f"{self.equal_counts} of {self.counted} have its number of tokens"
        if self.texts:
            return f"{texts} and {counts}" if self.counted else texts
        if self.counted:
            return f"{self.equal_counts} of {self.counted} prompts have the number of tokens of training"
        return "the server does not tell what it makes of a conversation"


def rendered(endpoint: Endpoint, messages: Sequence[Message], tools: Tools = ()) -> str | None:
    """The exact prompt that a server makes of a conversation, without an answer; None where it does not tell.

    Ollama tells for `_debug_render_only` (0.17.4 and later), llama.cpp's server at /apply-template. Neither writes the
    BOS that its engine adds.
    """
    if endpoint.protocol == "ollama":
        body = {"model": endpoint.model, **conversation(endpoint, messages, tools), "stream": False}
        body |= {"_debug_render_only": True, "options": {"num_predict": 1}}  # an old one answers: one token, then
        if endpoint.think is not None:
            body["think"] = endpoint.think
        told = post(endpoint, endpoint.url + "/api/chat", body).get("_debug_info") or {}
        return told.get("rendered_template")
    path = endpoint.url.removesuffix("/v1") + "/apply-template"
    return (try_post(endpoint, path, conversation(endpoint, messages, tools)) or {}).get("prompt")


def render_all(
    endpoint: Endpoint, conversations: Sequence[Sequence[Message]], tools: Sequence[Tools] | None = None
) -> list[str | None]:
    """`rendered` for each conversation and its tools; a server that does not tell for the first is not asked for the
    others."""
    texts: list[str | None] = []
    for messages, offered in zip(conversations, tools or [()] * len(conversations), strict=True):
        told = not texts or texts[0] is not None
        texts.append(rendered(endpoint, messages, offered) if told else None)
    return texts


def compare(rows: Sequence[Row], told: Sequence[Told], bos: str | None, tokenize: Tokenize | None = None) -> Comparison:
    """Each told prompt against training's; rows that training has no prompt for are left out.

    A text may lack BOS at its start: whether the engine adds it, the number of tokens tells. One that reads otherwise
    is still training's where `tokenize` makes the very tokens of it: what a tokeniser decodes is not always what it
    encoded.
    """
    pairs = [(row, one) for row, one in zip(rows, told, strict=True) if row["ids"] is not None]
    texts = [(row, one.text) for row, one in pairs if one.text is not None]
    counts = [(row, one.tokens) for row, one in pairs if one.tokens is not None]
    others = [(row, text) for row, text in texts if not _is_trained(row, text, bos, tokenize)]
    longer = [(row, count) for row, count in counts if count != len(row["ids"])]
    words = [text_difference(row, text, bos) for row, text in others[:1]]
    words += [f"row {row['id']}: {count} tokens, {len(row['ids'])} in training" for row, count in longer[:1]]
    return Comparison(
        len(texts), len(texts) - len(others), len(counts), len(counts) - len(longer), words[0] if words else ""
    )


def text_difference(row: Row, told: str, bos: str | None) -> str:
    """Where a told prompt leaves training's, counted in characters from 1, with what either has there."""
    trained = row["text"]
    if bos and not told.startswith(bos):
        trained = trained.removeprefix(bos)
    at = first_difference(trained, told)
    here, there = (repr(text[at : at + SHOWN]) if at < len(text) else "its end" for text in (told, trained))
    return f"row {row['id']}, character {at + 1}: {here}, in training {there}"


def _is_trained(row: Row, told: str, bos: str | None, tokenize: Tokenize | None) -> bool:
    if row["text"] in (told, (bos or "") + told):
        return True
    if tokenize is None:
        return False
    made, trained = list(tokenize(told)), list(row["ids"])
    return made in (trained, trained[1:] if bos and not told.startswith(bos) else trained)
