"""One GGUF in llama.cpp behind an OpenAI-compatible server: `serve_gguf CONFIG.json HOST PORT CONTEXT`.

The prompt is what the template inside the GGUF makes, as when it was measured; answers end at the stop words of
training, and a conversation without a system text gets the one of training.
"""

from __future__ import annotations

import codecs
import ctypes
import random
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from orchestrator.chat_template.jinja import render_messages
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.lib import process
from orchestrator.lib.cpu import threads
from orchestrator.lib.errors import MissingError, StageError
from orchestrator.serving.confidence import Confidence
from orchestrator.serving.openai_server.engine import Message, Piece, Sampling, Tool, configuration

LONGEST_TOKEN = 512
"""Bytes; llama-cpp-python's own 32 lose the longer ones, such as runs of spaces."""


def main(wanted: Mapping[str, Any]) -> None:
    """Serve until a signal comes."""
    try:
        import llama_cpp
    except ImportError as error:
        raise MissingError(f"{error}", "pip install llama-cpp-python") from None
    from orchestrator.serving.openai_server.app import serve

    llama = llama_cpp.Llama(**model_settings(wanted))
    sure = Confidence(llama, **wanted["confidence"]) if wanted.get("confidence") else None
    serve(LlamaCpp(llama, wanted["stop"], wanted["system"]), wanted, sure)


def model_settings(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """How llama.cpp loads the file; `logits_all` would keep the scores of every token of the context in memory.

    A token is computed with half of the cores, llama-cpp-python's own default: its threads wait for each other by
    spinning, and where another program wants a core as well, all of them are slower than one (8 tokens/s with two
    threads against 551 with one, a tiny model on two busy cores).
    """
    return {
        "model_path": wanted["gguf"],
        "lora_path": wanted["adapter"],
        "n_ctx": wanted["context"],
        "n_gpu_layers": -1,
        "n_threads": max(1, threads() // 2),
        "n_threads_batch": threads(),
        "logits_all": False,
        "verbose": False,
    }


class LlamaCpp:
    """llama-cpp-python's model as an engine. It keeps the tokens of the last conversation, so that the next turn of it
    is read from where it goes on."""

    lacks: frozenset[str] = frozenset()

    def __init__(self, llama: Any, stop: Sequence[str], system: str | None) -> None:
        if "tokenizer.chat_template" not in llama.metadata:
            hint = "Export again; the merged model lost chat_template.jinja."
            raise StageError("the GGUF has no chat template", hint)
        self.context = int(llama.n_ctx())
        self._llama, self._system = llama, system
        self._template = llama.metadata["tokenizer.chat_template"]
        self._special = SpecialTokens(bos=self._name(llama.token_bos()), eos=self._name(llama.token_eos()))
        words = [self.encode(word) for word in stop]
        self._ends = frozenset(word[0] for word in words if len(word) == 1)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """The tokens of what the template makes; it writes BOS itself."""
        given = messages[0]["role"] == "system" and messages[0]["content"]
        if self._system and not given:
            rest = messages[1:] if messages[0]["role"] == "system" else messages
            messages = [{"role": "system", "content": self._system}, *rest]
        return self.encode(render_messages(self._template, messages, self._special, tools=tools))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, special ones read as such."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=True))

    def answer(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> Generator[Piece, None, None]:
        """The answer as it comes, up to a token that ends it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for count, token in enumerate(self._tokens(prompt, sampling), 1):
            if self._is_end(token):
                break
            yield Piece(decoder.decode(self._bytes(token)))
            if count == limit:
                break
        if left := decoder.decode(b"", final=True):
            yield Piece(left, tokens=0)

    def _tokens(self, prompt: Sequence[int], sampling: Sampling) -> Any:
        self._llama.set_seed(random.getrandbits(32) if sampling.seed is None else sampling.seed)
        return self._llama.generate(
            prompt,
            temp=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repeat_penalty=sampling.repeat_penalty,
        )

    def _is_end(self, token: int) -> bool:
        import llama_cpp

        return token in self._ends or bool(llama_cpp.llama_vocab_is_eog(self._llama._model.vocab, token))

    def _bytes(self, token: int) -> bytes:
        import llama_cpp

        buffer = ctypes.create_string_buffer(LONGEST_TOKEN)
        length = llama_cpp.llama_token_to_piece(self._llama._model.vocab, token, buffer, LONGEST_TOKEN, 0, False)
        return buffer.raw[: max(0, length)]

    def _name(self, token: int) -> str | None:
        return str(self._llama._model.token_get_text(token)) if token >= 0 else None


if __name__ == "__main__":
    process.run_program(lambda: main(configuration(sys.argv[1:])))
