"""A GGUF in llama.cpp: its metadata, its tokenizer, and greedy answers to many prompts at once."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

from orchestrator.lib.cpu import threads
from orchestrator.lib.errors import StageError
from orchestrator.models.decoder import BATCH_TOKENS, Batch, Decoder, Entry, batches, common_prefix, most_tokens, width
from orchestrator.models.draft import Draft, check, until_end
from orchestrator.models.reading import Reading

SEQUENCES = 32
"""Prompts under way at once. More gain little on a CPU, since a batch is then bound by arithmetic, not by memory."""
READ_TOGETHER = 8
"""Prompts whose answers are read, not chosen, at once."""

T = TypeVar("T")
Look = Callable[[Any, int, int], T]
"""What is made of the logits (float32, vocabulary; gone with the next batch) for a row's token: row, its number among
those that are read, which is its place in the answer where nothing of the prompt is."""


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

    @classmethod
    def of(cls, llama: Any) -> GgufModel:
        """The model that llama-cpp-python's `Llama` has loaded, which goes on owning it: to be used without `with`."""
        import llama_cpp

        model = cls.__new__(cls)
        model._api, model._model, model._adapter = llama_cpp, llama._model.model, llama._lora_adapter
        model._vocab = llama_cpp.llama_model_get_vocab(model._model)
        return model

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

    @property
    def branches(self) -> bool:
        """Whether several sequences can go on from the same tokens: llama.cpp refuses it for a model that keeps nothing
        of them but a state."""
        return not self._api.llama_model_is_recurrent(self._model)

    @property
    def sequences_at_most(self) -> int:
        """How many sequences can be under way; of a model that keeps a state for each, no more than answering takes."""
        most = int(self._api.llama_max_parallel_sequences())
        return min(most, 1 + SEQUENCES) if self._api.llama_model_is_hybrid(self._model) else most

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

    def is_end(self, stops: frozenset[int], token: int) -> bool:
        """Whether a token ends an answer: one of these, or one that llama.cpp ends at by itself."""
        return token in stops or bool(self._api.llama_vocab_is_eog(self._vocab, token))

    def stops(self, words: Sequence[str]) -> frozenset[int]:
        """The ids of stop words that are single tokens."""
        ids = [self.tokenize(word) for word in words]
        return frozenset(word[0] for word in ids if len(word) == 1)

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stops: frozenset[int] = frozenset(),
        drafts: Mapping[int, Draft] = MappingProxyType({}),
    ) -> Iterator[tuple[int, list[int]]]:
        """Greedy answers as (index of the prompt, token ids without the stop token), in the order they are finished.

        Prompts run together and share the computation of their common prefix. Those that `drafts` has, by their index,
        come first. Raises StageError when llama.cpp fails.
        """
        ends = functools.partial(self.is_end, stops)
        left, begun = dict(enumerate(prompts)), {}
        for index, agreed in check(drafts, prompts, self.read):
            begun[index], ended = until_end(agreed, ends, max_new_tokens)
            if ended:
                del left[index]
                yield index, begun[index]
        if not left:
            return
        shared, sequences = common_prefix(list(left.values())), min(SEQUENCES, len(left))
        room = len(shared) + sequences * (max(map(len, left.values())) - len(shared) + max_new_tokens)
        with self.decoder(room, sequences + 1) as decoder:
            yield from Batch(decoder, sequences, ends, max_new_tokens).run(left, shared, begun)

    def read_answers(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        look: Look[T],
        own: Sequence[Sequence[int]] = (),
    ) -> Iterator[list[T]]:
        """For each prompt what `look` makes of the logits for every token of an answer that is given, not chosen.

        `own` has tokens of each prompt that are looked at before those, counted from its end (−1 is its last). Raises
        StageError when llama.cpp fails.
        """
        rows = zip(prompts, answers, own or [()] * len(prompts), strict=True)
        return self.read([Reading(prompt, [answer], of) for prompt, answer, of in rows], look)

    def read(self, readings: Sequence[Reading], look: Look[T]) -> Iterator[list[T]]:
        """For each reading what `look` makes of the logits at its places; several are read together, and what all
        begin with once. Raises StageError when llama.cpp fails."""
        shared = common_prefix([reading.before for reading in readings])
        rows = [reading.entries(len(shared)) for reading in readings]
        most = max(1, min(READ_TOGETHER, (self.sequences_at_most - 1) // max(map(width, rows))))
        together = list(batches(rows, most))
        sequences = max(sum(map(width, batch)) for batch in together)
        read = 0
        with self.decoder(len(shared) + most_tokens(together), 1 + sequences) as decoder:
            decoder.prefix(shared)
            for batch in together:
                yield from decoder.read_together(batch, functools.partial(_of_rows, look, read))
                read += len(batch)

    def log_likelihoods(self, texts: Sequence[Sequence[int]]) -> Iterator[list[float]]:
        """For each text the log-probability in nats of every token but the first, after those before it.

        Raises StageError when llama.cpp fails.
        """
        from scipy.special import log_softmax

        def look(logits: Any, row: int, place: int) -> float:
            return float(log_softmax(logits)[texts[row][place + 1]])

        yield from self.read_answers([text[:1] for text in texts], [text[1:] for text in texts], look)

    def observed(self, texts: Sequence[Sequence[int]], observe: Callable[[int, bool, Any], bool]) -> Iterator[int]:
        """Read the texts, many at once, and what all begin with a single time. llama.cpp calls `observe` before and
        after it computes each node of its graph.

        Yields how many were read, 0 after what all begin with. Raises StageError when llama.cpp fails.
        """
        called = self._api.ggml_backend_sched_eval_callback(observe)
        shared = common_prefix(texts)
        together = list(batches([text[len(shared) :] for text in texts], SEQUENCES))
        read = 0
        with self.decoder(len(shared) + most_tokens(together), 1 + max(map(len, together)), called) as decoder:
            decoder.prefix(shared, wanted=True)
            yield read
            for batch in together:
                # logits are wanted everywhere: llama.cpp's last layer leaves the other tokens out
                entries = [
                    Entry(token, at, (slot,), True)
                    for slot, text in enumerate(batch, 1)
                    for at, token in enumerate(text, len(shared))
                ]
                with decoder.forks(len(batch)):
                    decoder.decode(entries)
                yield (read := read + len(batch))

    @contextlib.contextmanager
    def decoder(self, tokens: int, sequences: int, observer: Any = None) -> Iterator[Decoder]:
        """A context with room for so many tokens and sequences; `observer` is called for each node of its graph.

        Raises StageError when there is no room.
        """
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
        try:
            if self._adapter:
                adapters = (self._api.llama_adapter_lora_p_ctypes * 1)(self._adapter)
                self._api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))
            yield Decoder(self._api, context, self._vocab)
        finally:
            self._api.llama_free(context)


@functools.cache
def _silence() -> Any:
    """What is called with each line of the log; llama.cpp keeps calling it, so it must never be garbage-collected."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


def _of_rows(look: Look[T], first: int, logits: Any, row: int, place: int) -> T:
    return look(logits, first + row, place)
