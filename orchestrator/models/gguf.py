"""A GGUF in llama.cpp: its metadata, its tokenizer, and greedy answers to many prompts at once."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from orchestrator.lib.cpu import threads
from orchestrator.lib.errors import StageError

BATCH_TOKENS = 512
"""Tokens decoded at once; llama.cpp's own default for its physical batch."""
SEQUENCES = 32
"""Prompts under way at once. More gain little on a CPU, since a batch is then bound by arithmetic, not by memory."""

T = TypeVar("T")
Look = Callable[[Any, int, int], T]
"""What is made of the logits (float32, vocabulary; gone with the next batch) for a row's token: row, its place in the
answer."""


@dataclass(slots=True)
class _Sequence:
    """One prompt under way."""

    prompt: int
    pending: list[int]
    """Tokens to decode next: what is left of the prompt, then the last token chosen."""
    position: int
    answer: list[int] = field(default_factory=list)


class GgufModel:
    """A loaded GGUF; a context manager that frees it."""

    def __init__(
        self, path: Path, adapter: Path | None = None, quiet: bool = True, vocabulary_only: bool = False
    ) -> None:
        """Load a GGUF, and a LoRA adapter over it; or its metadata and tokenizer, without the weights.

        Raises StageError when llama.cpp refuses a file.
        """
        import llama_cpp

        self._api: Any = llama_cpp
        if quiet:
            llama_cpp.llama_log_set(_silence(), ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise StageError(
                f"llama.cpp cannot load {path.name}: it is damaged, or of a kind that this llama.cpp does not know",
                "Make it again with `orchestrator export --force export`.",
            )
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._adapter = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(adapter)) if adapter else None
        if adapter and not self._adapter:
            raise StageError(f"llama.cpp cannot load {adapter.name} over {path.name}", "Is it this model's adapter?")

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.llama_model_free(self._model)

    def metadata(self, key: str) -> str | None:
        """A metadata value as text, or None."""
        size = 1 << 16
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._api.llama_model_meta_val_str(self._model, key.encode(), buffer, size)
            if length < size:
                return buffer.value.decode("utf-8", "replace") if length >= 0 else None
            size = length + 1

    def adds_bos(self) -> bool:
        """Whether llama.cpp puts BOS in front of a plain prompt by itself."""
        return bool(self._api.llama_vocab_get_add_bos(self._vocab))

    def token_text(self, token: int) -> str | None:
        """The text of a token in the vocabulary, or None for no token (-1)."""
        text = self._api.llama_vocab_get_text(self._vocab, token) if token >= 0 else None
        return text.decode("utf-8", "replace") if text else None

    @property
    def bos(self) -> str | None:
        """The begin token's text."""
        return self.token_text(self._api.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str | None:
        """The end token's text."""
        return self.token_text(self._api.llama_vocab_eos(self._vocab))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, special tokens read as such, nothing added."""
        data = text.encode()
        room = len(data) + 8
        ids = (self._api.llama_token * room)()
        count = self._api.llama_tokenize(self._vocab, data, len(data), ids, room, False, True)
        if count < 0:
            raise StageError(f"llama.cpp cannot tokenise {text[:60]!r}")
        return list(ids[:count])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, special tokens left out."""
        pieces = []
        buffer = ctypes.create_string_buffer(512)
        for token in tokens:
            length = self._api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            pieces.append(buffer.raw[: max(0, length)])
        return b"".join(pieces).decode("utf-8", "replace")

    def ends_with(self, word: str) -> bool:
        """Whether llama.cpp ends an answer at this word by itself: EOS, and what it takes for an end of turn."""
        ids = self.tokenize(word)
        return len(ids) == 1 and bool(self._api.llama_vocab_is_eog(self._vocab, ids[0]))

    def stops(self, words: Sequence[str]) -> frozenset[int]:
        """The ids of stop words that are single tokens."""
        ids = [self.tokenize(word) for word in words]
        return frozenset(word[0] for word in ids if len(word) == 1)

    def answers(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: frozenset[int] = frozenset()
    ) -> Iterator[tuple[int, list[int]]]:
        """Greedy answers as (index of the prompt, token ids without the stop token), in the order they are finished.

        Prompts run together and share the computation of their common prefix. Raises StageError when llama.cpp fails.
        """
        longest = max(len(prompt) for prompt in prompts)
        sequences = min(SEQUENCES, len(prompts))
        shared = _common_prefix(prompts)
        room = len(shared) + sequences * (longest - len(shared) + max_new_tokens)
        context = self._context(room, sequences + 1)
        try:
            yield from _Decoder(self._api, context, self._vocab, sequences, stops).run(prompts, shared, max_new_tokens)
        finally:
            self._api.llama_free(context)

    def read_answers(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], look: Look[T]
    ) -> Iterator[list[T]]:
        """For each prompt what `look` makes of the logits for every token of an answer that is given, not chosen.

        Raises StageError when llama.cpp fails.
        """
        shared = _common_prefix(prompts)
        longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        context = self._context(len(shared) + longest, 2)
        decoder = _Decoder(self._api, context, self._vocab, 1, frozenset())
        try:
            decoder.decode_prefix(shared)
            for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
                yield decoder.read(prompt[len(shared) :], answer, len(shared), functools.partial(_of_row, look, row))
        finally:
            self._api.llama_free(context)

    def log_likelihoods(self, texts: Sequence[Sequence[int]]) -> Iterator[list[float]]:
        """For each text the log-probability in nats of every token but the first, after those before it.

        Raises StageError when llama.cpp fails.
        """
        from scipy.special import log_softmax

        def look(logits: Any, row: int, place: int) -> float:
            return float(log_softmax(logits)[texts[row][place + 1]])

        yield from self.read_answers([text[:1] for text in texts], [text[1:] for text in texts], look)

    def observed(self, texts: Sequence[Sequence[int]], observe: Callable[[int, bool, Any], bool]) -> Iterator[int]:
        """Read the texts, many at once; llama.cpp calls `observe` before and after it computes each node of its graph.

        Yields how many were read. Raises StageError when llama.cpp fails.
        """
        called = self._api.ggml_backend_sched_eval_callback(observe)
        batches = list(_batches(texts))
        context = self._context(max(sum(map(len, batch)) for batch in batches), max(map(len, batches)), called)
        decoder = _Decoder(self._api, context, self._vocab, 1, frozenset())
        try:
            read = 0
            for batch in batches:
                decoder.read_together(batch)
                yield (read := read + len(batch))
        finally:
            self._api.llama_free(context)

    def _context(self, tokens: int, sequences: int, observer: Any = None) -> Any:
        parameters = self._api.llama_context_default_params()
        if observer:
            parameters.cb_eval = observer
        parameters.n_ctx = -(-tokens // 256) * 256
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_seq_max = sequences
        parameters.kv_unified = True  # else a sequence cannot share the cells of the common prefix
        parameters.n_threads = parameters.n_threads_batch = threads()
        context = self._api.llama_init_from_model(self._model, parameters)
        if not context:
            raise StageError(f"llama.cpp has no room for {parameters.n_ctx} tokens", "Lower evaluate.max_new_tokens.")
        if self._adapter:
            adapters = (self._api.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            self._api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))
        return context


class _Decoder:
    """Continuous batching over llama.cpp's sequences: sequence 0 keeps the shared prefix, the others answer."""

    def __init__(self, api: Any, context: Any, vocab: Any, sequences: int, stops: frozenset[int]) -> None:
        self._api, self._context, self._vocab, self._stops = api, context, vocab, stops
        self._memory = api.llama_get_memory(context)
        self._vocabulary_size = api.llama_vocab_n_tokens(vocab)
        self._free = list(range(sequences, 0, -1))

    def run(
        self, prompts: Sequence[Sequence[int]], shared: Sequence[int], limit: int
    ) -> Iterator[tuple[int, list[int]]]:
        self.decode_prefix(shared)
        waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
        active: dict[int, _Sequence] = {}
        while waiting or active:
            self._admit(active, waiting, prompts, len(shared))
            for slot, token in self._step(active):
                sequence = active[slot]
                if not self._ends(token):
                    sequence.answer.append(token)
                    sequence.pending = [token]
                if self._ends(token) or len(sequence.answer) >= limit:
                    self._release(active, slot)
                    yield sequence.prompt, sequence.answer

    def read(self, prompt: Sequence[int], answer: Sequence[int], at: int, look: Callable[[Any, int], T]) -> list[T]:
        """What `look` makes of the logits for each token of the answer; `prompt` goes on at position `at`, behind what
        sequence 0 holds, and nothing of it stays in the context."""
        tokens, first = [*prompt, *answer][:-1], len(prompt) - 1
        found: list[T] = []
        self._api.llama_memory_seq_cp(self._memory, 0, 1, -1, -1)
        for start in range(0, len(tokens), BATCH_TOKENS):
            places = range(start, min(start + BATCH_TOKENS, len(tokens)))
            self._decode([(tokens[place], at + place, 1, place >= first) for place in places])
            found += [look(self._logits(place - start), place - first) for place in places if place >= first]
        self._api.llama_memory_seq_rm(self._memory, 1, -1, -1)
        return found

    def read_together(self, texts: Sequence[Sequence[int]]) -> None:
        """Decode some texts, each a sequence of its own, that fit into a batch; or one that is longer.

        Logits are asked for everywhere: llama.cpp's last layer leaves the other tokens out.
        """
        entries = [(token, at, slot, True) for slot, text in enumerate(texts) for at, token in enumerate(text)]
        for start in range(0, len(entries), BATCH_TOKENS):
            self._decode(entries[start : start + BATCH_TOKENS])
        for slot in range(len(texts)):
            self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def decode_prefix(self, shared: Sequence[int]) -> None:
        for start in range(0, len(shared), BATCH_TOKENS):
            part = shared[start : start + BATCH_TOKENS]
            self._decode([(token, start + offset, 0, False) for offset, token in enumerate(part)])

    def _admit(
        self, active: dict[int, _Sequence], waiting: list[int], prompts: Sequence[Sequence[int]], shared: int
    ) -> None:
        while waiting and self._free:
            index, slot = waiting.pop(), self._free.pop()
            self._api.llama_memory_seq_cp(self._memory, 0, slot, -1, -1)
            active[slot] = _Sequence(index, list(prompts[index][shared:]), shared)

    def _release(self, active: dict[int, _Sequence], slot: int) -> None:
        del active[slot]
        self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._free.append(slot)

    def _step(self, active: dict[int, _Sequence]) -> list[tuple[int, int]]:
        """Decode what is pending, as much as one batch holds; returns (slot, next token) where a prompt ended."""
        entries: list[tuple[int, int, int, bool]] = []
        ends: list[tuple[int, int]] = []
        for slot, sequence in active.items():
            part = sequence.pending[: BATCH_TOKENS - len(entries)]
            del sequence.pending[: len(part)]
            for token in part:
                entries.append((token, sequence.position, slot, False))
                sequence.position += 1
            if part and not sequence.pending:
                entries[-1] = (*entries[-1][:3], True)
                ends.append((slot, len(entries) - 1))
        self._decode(entries)
        return [(slot, self._best(index)) for slot, index in ends]

    def _decode(self, entries: list[tuple[int, int, int, bool]]) -> None:
        batch = self._api.llama_batch_init(len(entries), 0, 1)
        try:
            batch.n_tokens = len(entries)
            for index, (token, position, slot, wanted) in enumerate(entries):
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, slot
                batch.logits[index] = wanted
            if (code := self._api.llama_decode(self._context, batch)) != 0:
                raise StageError(f"llama.cpp failed to decode (code {code})", "The GGUF or the runtime is broken.")
        finally:
            self._api.llama_batch_free(batch)

    def _best(self, index: int) -> int:
        return int(self._logits(index).argmax())

    def _logits(self, index: int) -> Any:
        import numpy as np

        logits = self._api.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(logits, shape=(self._vocabulary_size,))

    def _ends(self, token: int) -> bool:
        return token in self._stops or bool(self._api.llama_vocab_is_eog(self._vocab, token))


@functools.cache
def _silence() -> Any:
    """What llama.cpp calls with each line of its log. It keeps on calling it, so this must live as long as it."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """The texts in order, as many together as a batch holds, at least one."""
    batch: list[Sequence[int]] = []
    for text in texts:
        if batch and (len(batch) == SEQUENCES or sum(map(len, batch)) + len(text) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _of_row(look: Look[T], row: int, logits: Any, place: int) -> T:
    return look(logits, row, place)


def _common_prefix(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    # The last token of a prompt must be decoded for itself, since its logits are the answer's first token.
    first, last = min(map(list, prompts)), max(map(list, prompts))
    limit = min(len(prompt) for prompt in prompts) - 1
    length = next((i for i in range(limit) if first[i] != last[i]), limit)
    return first[: max(0, length)]
