"""A reasoning model's text in two parts, thought and answer, as servers send them: whole, or piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.chat_template.registry import definition

WHITE = " \t\r\n"
"""What llama.cpp trims around a thought; `str.strip` would take the full-width space of a Chinese text as well."""


@dataclass(frozen=True, slots=True)
class Parts:
    """`reasoning_content` and `content` of an answer, or what a stream adds to each of them."""

    thought: str = ""
    answer: str = ""

    def __add__(self, more: Parts) -> Parts:
        return Parts(self.thought + more.thought, self.answer + more.answer)

    def __bool__(self) -> bool:
        return bool(self.thought or self.answer)


def thought_words(template: str, thinking: bool) -> tuple[str, str] | None:
    """The words before and after a thought, if a model trained so writes thoughts; None otherwise.

    Raises InputError for an unknown template.
    """
    chosen = definition(template)
    return chosen.thought_words if chosen.reasons and thinking else None


USUAL = ("<think>", "</think>")
"""Between which data sets have thoughts, whatever the words of a template."""


def in_words(text: str, words: tuple[str, str]) -> str:
    """An answer with the thought that begins it between a template's own words, letter by letter.

    LLaMA-Factory does not take out a thought that stands otherwise, as in `<think>so</think>yes` with qwen3. An empty
    one is left out, since training adds it where it belongs.
    """
    begun = text.lstrip(WHITE)
    if begun.startswith(words[0]) and words[1] in begun:
        return text
    for opening, closing in (words, USUAL):
        if begun.startswith(opening.strip(WHITE)) and closing.strip(WHITE) in begun:
            parts = split(begun, (opening, closing))
            return f"{words[0]}{parts.thought}{words[1]}{parts.answer}" if parts.thought else parts.answer
    return text


def split(text: str, words: tuple[str, str] | None) -> Parts:
    """A whole text in two parts; without words, or where no thought begins it, all of it is the answer."""
    splitter = Splitter(words)
    return splitter.feed(text) + splitter.finish()


class Splitter:
    """Takes a text in pieces of any size and tells what each adds to the thought and to the answer.

    A thought stands at the beginning, between the two words; white space around it belongs to neither part. One that
    never ends, because the answer ran out of tokens, is all thought. Only what may still turn out to be one of the
    words, or white space before it, is held back; the sum of all pieces is what `split` makes of the whole.
    """

    def __init__(self, words: tuple[str, str] | None) -> None:
        self._opening, self._closing = (word.strip(WHITE) for word in words or ("", ""))
        self._held = ""
        self._trims = False
        self._at: Callable[[bool], Parts] = self._before if words else self._in_answer

    def feed(self, text: str) -> Parts:
        """What this piece adds."""
        self._held += text
        return self._at(False)

    def finish(self) -> Parts:
        """What was held back when the text ended."""
        return self._at(True)

    def _before(self, final: bool) -> Parts:
        """Nothing but white space and perhaps the beginning of a word so far."""
        text, words = self._held.lstrip(WHITE), (self._opening, self._closing)
        if text.startswith(words):
            thinks = text.startswith(self._opening)
            word, step = (self._opening, self._in_thought) if thinks else (self._closing, self._in_answer)
            return self._go_on(step, text[len(word) :], final)
        if not final and any(word.startswith(text) for word in words):
            return Parts()
        self._at = self._in_answer
        return self._in_answer(final)

    def _in_thought(self, final: bool) -> Parts:
        self._trim()
        thought, found, rest = self._held.partition(self._closing)
        if found:
            return Parts(thought=thought.rstrip(WHITE)) + self._go_on(self._in_answer, rest, final)
        kept = thought if final else thought[: len(thought) - overlap(thought, self._closing)]
        return Parts(thought=self._release(kept.rstrip(WHITE)))

    def _in_answer(self, final: bool) -> Parts:
        self._trim()
        return Parts(answer=self._release(self._held))

    def _go_on(self, step: Callable[[bool], Parts], rest: str, final: bool) -> Parts:
        """The next part begins, without its leading white space."""
        self._at, self._held, self._trims = step, rest, True
        return step(final)

    def _trim(self) -> None:
        if self._trims:
            self._held = self._held.lstrip(WHITE)
            self._trims = not self._held

    def _release(self, text: str) -> str:
        self._held = self._held[len(text) :]
        return text


def overlap(text: str, word: str) -> int:
    """The length of the longest end of a text that is a beginning of the word."""
    return next((size for size in range(min(len(text), len(word)), 0, -1) if text.endswith(word[:size])), 0)
