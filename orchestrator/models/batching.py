"""Greedy answers to many prompts at once: a sequence that ends makes room for the next prompt (continuous batching)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.models.decoder import BATCH_TOKENS, Decoder, Entry


@dataclass(slots=True)
class _Prompt:
    """One prompt under way."""

    number: int
    pending: list[int]
    """Tokens to decode next: what is left of the prompt and of a begun answer, then the last token chosen."""
    position: int
    answer: list[int] = field(default_factory=list)


class Batch:
    """The prompts that are answered at once, each in a sequence from 1 on."""

    def __init__(self, decoder: Decoder, sequences: int, ends: Callable[[int], bool], limit: int) -> None:
        """`ends` says which tokens end an answer; none has more tokens than `limit`."""
        self._decoder, self._ends, self._limit = decoder, ends, limit
        self._free = list(range(sequences, 0, -1))
        self._active: dict[int, _Prompt] = {}

    def run(
        self, prompts: Mapping[int, Sequence[int]], shared: Sequence[int], begun: Mapping[int, Sequence[int]]
    ) -> Iterator[tuple[int, list[int]]]:
        """Answers as (number of the prompt, token ids), in the order they end; `shared` begins every prompt,
        and `begun` has what some are answered with at first."""
        self._decoder.prefix(shared)
        waiting = sorted(prompts, key=lambda number: len(prompts[number]), reverse=True)
        while waiting or self._active:
            while waiting and self._free:
                number = waiting.pop()
                answer = list(begun.get(number, ()))
                self._admit(_Prompt(number, [*prompts[number][len(shared) :], *answer], len(shared), answer))
            for slot, token in self._step():
                prompt = self._active[slot]
                if not self._ends(token):
                    prompt.answer.append(token)
                    prompt.pending = [token]
                if self._ends(token) or len(prompt.answer) >= self._limit:
                    self._release(slot)
                    yield prompt.number, prompt.answer

    def _admit(self, prompt: _Prompt) -> None:
        slot = self._free.pop()
        self._decoder.fork(slot)
        self._active[slot] = prompt

    def _release(self, slot: int) -> None:
        del self._active[slot]
        self._decoder.drop(slot)
        self._free.append(slot)

    def _step(self) -> list[tuple[int, int]]:
        """Decode what is pending, as much as one batch holds; returns (slot, next token) where a prompt ended."""
        entries: list[Entry] = []
        ended: list[int] = []
        for slot, prompt in self._active.items():
            part = prompt.pending[: BATCH_TOKENS - len(entries)]
            del prompt.pending[: len(part)]
            entries += [Entry(token, prompt.position + at, (slot,)) for at, token in enumerate(part)]
            prompt.position += len(part)
            if part and not prompt.pending:
                entries[-1] = entries[-1]._replace(wanted=True)
                ended.append(slot)
        return list(zip(ended, self._decoder.read(entries, lambda logits, _: int(logits.argmax())), strict=True))
