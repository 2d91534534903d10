"""A context of llama.cpp: tokens go in, each at a position of some sequences, and logits come out; many prompts are
answered in it at once, greedily, a sequence that ends making room for the next prompt (continuous batching)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, NamedTuple, TypeVar

from orchestrator.lib.errors import StageError
from orchestrator.lib.sequences import first_difference

BATCH_TOKENS = 512
"""Tokens decoded at once; llama.cpp's own default for its physical batch."""

A = TypeVar("A")
T = TypeVar("T")


class Entry(NamedTuple):
    """A token to decode."""

    token: int
    position: int
    sequences: Sequence[int]
    """Those that it belongs to; it is computed once for all of them."""
    wanted: bool = False
    """Whether its logits are to be looked at."""


class Decoder:
    """Sequence 0 keeps what all prompts begin with; the others go on from there."""

    def __init__(self, api: Any, context: Any, vocab: Any) -> None:
        self._api, self._context = api, context
        self._memory = api.llama_get_memory(context)
        self._vocabulary_size = api.llama_vocab_n_tokens(vocab)

    def prefix(self, tokens: Sequence[int], wanted: bool = False) -> None:
        """Decode what all prompts begin with."""
        self.decode([Entry(token, at, (0,), wanted) for at, token in enumerate(tokens)])

    def fork(self, sequence: int) -> None:
        """Begin a sequence with what sequence 0 holds."""
        self._api.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)

    def drop(self, sequence: int) -> None:
        """Empty a sequence."""
        self._api.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    @contextlib.contextmanager
    def forks(self, count: int) -> Iterator[None]:
        """Sequences from 1 on that begin with what sequence 0 holds, and are emptied at the end."""
        for sequence in range(1, count + 1):
            self.fork(sequence)
        yield
        for sequence in range(1, count + 1):
            self.drop(sequence)

    def decode(self, entries: Sequence[Entry]) -> None:
        """Decode any number of tokens. Raises StageError when llama.cpp fails."""
        for start in range(0, len(entries), BATCH_TOKENS):
            self._decode(entries[start : start + BATCH_TOKENS])

    def read(self, entries: Sequence[Entry], look: Callable[[Any, int], T]) -> list[T]:
        """Decode, and return what `look` makes of each wanted token's logits (float32, vocabulary; gone with the next
        batch) and its number among the wanted ones. Raises StageError when llama.cpp fails."""
        found: list[T] = []
        for start in range(0, len(entries), BATCH_TOKENS):
            batch = entries[start : start + BATCH_TOKENS]
            self._decode(batch)
            found += [
                look(self._logits(index), number)
                for number, index in enumerate((at for at, entry in enumerate(batch) if entry.wanted), len(found))
            ]
        return found

    def read_together(self, rows: Sequence[Sequence[Entry]], look: Callable[[Any, int, int], T]) -> list[list[T]]:
        """Decode rows that go on from sequence 0, with sequences of their own, which each counts from 0; its first
        token belongs to all of them.

        Returns for each what `look` makes of the logits for its wanted tokens, its number, and that of the token among
        them. Raises StageError when llama.cpp fails.
        """
        first = list(accumulate(map(width, rows), initial=1))
        entries = [
            entry._replace(sequences=[start + of for of in entry.sequences])
            for start, row in zip(first, rows, strict=False)
            for entry in row
        ]
        counts = [sum(entry.wanted for entry in row) for row in rows]
        shown = [(number, place) for number, count in enumerate(counts) for place in range(count)]
        with self.forks(first[-1] - 1):
            found = iter(self.read(entries, lambda logits, number: look(logits, *shown[number])))
        return [list(islice(found, count)) for count in counts]

    def _decode(self, entries: Sequence[Entry]) -> None:
        batch = self._api.llama_batch_init(len(entries), 0, max(len(entry.sequences) for entry in entries))
        try:
            batch.n_tokens = len(entries)
            for index, (token, position, sequences, wanted) in enumerate(entries):
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.logits[index] = len(sequences), wanted
                for at, sequence in enumerate(sequences):
                    batch.seq_id[index][at] = sequence
            if (code := self._api.llama_decode(self._context, batch)) != 0:
                raise StageError(f"llama.cpp failed to decode (code {code})", "The GGUF or the runtime is broken.")
        finally:
            self._api.llama_batch_free(batch)

    def _logits(self, index: int) -> Any:
        import numpy as np

        logits = self._api.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(logits, shape=(self._vocabulary_size,))


def common_prefix(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    """The tokens that all prompts begin with, less the last of a prompt, which is decoded for itself: its logits are
    the answer's first token."""
    first, last = min(map(list, prompts)), max(map(list, prompts))
    shortest = min(map(len, prompts))
    return first[: max(0, min(first_difference(first, last), shortest - 1))]


def width(row: Sequence[Entry]) -> int:
    """How many sequences of its own a row has."""
    return len(row[0].sequences)


def batches(texts: Sequence[Sequence[A]], most: int) -> Iterator[list[Sequence[A]]]:
    """The texts in order, as many together as a batch holds, at least one and at most `most`."""
    batch: list[Sequence[A]] = []
    for text in texts:
        if batch and (len(batch) == most or sum(map(len, batch)) + len(text) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def most_tokens(together: Sequence[Sequence[Sequence[object]]]) -> int:
    """How many tokens the largest of some batches of texts has."""
    return max(sum(map(len, batch)) for batch in together)


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
