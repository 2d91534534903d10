"""Base or tuned model behind an OpenAI-compatible server: `serve_llamafactory CONFIG.json HOST PORT CONTEXT`.

LLaMA-Factory makes the prompt and loads the model with the arguments that `predict` computes with; transformers
answers. LLaMA-Factory's own server knows no end of a context, takes `presence_penalty` for a repetition penalty, does
not say in a stream why it ended, and lets the pages of every site ask it.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.chat_template.messages import to_turns
from orchestrator.chat_template.registry import TemplateName, tool_definition
from orchestrator.chat_template.tool_formats import told_to_training
from orchestrator.lib import process
from orchestrator.serving.openai_server.engine import Message, Piece, Sampling, Tool, configuration

TURNS = {"function_call": "function"}
"""What LLaMA-Factory calls a turn inside; the others have the same name in data and encoder."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What transformers' tokenizers write for the bytes of a character that is not whole yet."""


def main(wanted: Mapping[str, Any]) -> None:
    """Serve until a signal comes."""
    from orchestrator.serving.openai_server.app import serve

    arguments = wanted["arguments"]
    name = TemplateName(arguments["template"], arguments.get("tool_format"))
    serve(Transformers(load(arguments), wanted["context"], str(name)), wanted)


def load(arguments: Mapping[str, Any]) -> Any:
    """LLaMA-Factory's tokenizer, template and model.

    The parser of inference leaves model_max_length out, without which it would stretch the positions (`rope_scaling`)
    by 2 whatever the training did; here it is what `get_train_args` makes of it.
    """
    from llamafactory.chat.hf_engine import HuggingfaceEngine
    from llamafactory.hparams import get_infer_args

    model, data, finetuning, generating = get_infer_args(dict(arguments))
    model.model_max_length = data.cutoff_len
    return HuggingfaceEngine(model, data, finetuning, generating)


class Transformers:
    """What LLaMA-Factory has loaded, as an engine."""

    lacks = frozenset({"presence_penalty", "frequency_penalty"})

    def __init__(self, loaded: Any, context: int, template: str) -> None:
        self._tools = tool_definition(template)
        self._model, self._tokenizer, self._template = loaded.model, loaded.tokenizer, loaded.template
        self.context = context
        self._ends = [token for token in loaded.template.get_stop_token_ids(loaded.tokenizer) if token is not None]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """The tokens that LLaMA-Factory's template makes, as in training; without a system text, with its default."""
        rest = to_turns(messages, self._tools.call_words)
        system = rest.pop(0)["content"] or None if rest[0]["role"] == "system" else None
        told = told_to_training(self._tools.format, system, tools, self._template.default_system)
        question = [{**turn, "role": TURNS.get(turn["role"], turn["role"])} for turn in rest]
        question.append({"role": "assistant", "content": ""})
        prompt, _ = self._template.encode_oneturn(self._tokenizer, question, *told)
        return list(prompt)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, special ones read as such."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def answer(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> Generator[Piece, None, None]:
        """The answer as it comes, up to a token that ends it."""
        answer: list[int] = []
        shown = ""
        with _Generation(self._model, self._arguments(prompt, limit, sampling), sampling.seed) as tokens:
            for token in tokens:
                if token in self._ends:
                    break
                answer.append(token)
                text = self._tokenizer.decode(answer, skip_special_tokens=True)
                whole = "" if text.endswith(INCOMPLETE) else text[len(shown) :]
                shown += whole
                yield Piece(whole)
        if left := self._tokenizer.decode(answer, skip_special_tokens=True)[len(shown) :]:
            yield Piece(left, tokens=0)

    def _arguments(self, prompt: Sequence[int], limit: int, sampling: Sampling) -> dict[str, Any]:
        import torch
        from transformers import GenerationConfig

        inputs = torch.tensor([list(prompt)], device=self._model.device)
        ends: dict[str, Any] = {"eos_token_id": self._ends, "pad_token_id": self._tokenizer.pad_token_id}
        chosen: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
            chosen |= {"top_k": sampling.top_k, "min_p": sampling.min_p}
        config = GenerationConfig(
            max_new_tokens=limit, num_beams=1, repetition_penalty=sampling.repeat_penalty, **chosen, **ends
        )
        return {"inputs": inputs, "attention_mask": torch.ones_like(inputs), "generation_config": config}


class _Generation:
    """`generate` in a thread of its own, its tokens as they come; leaving the block ends it."""

    def __init__(self, model: Any, arguments: dict[str, Any], seed: int | None) -> None:
        self._model, self._arguments, self._seed = model, arguments, seed
        self._tokens: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._skip = True

    def __enter__(self) -> Iterator[int]:
        self._thread.start()
        return self._each()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def put(self, tokens: Any) -> None:
        """What transformers calls first with the prompt, then with each token."""
        if not self._skip:
            self._tokens.put(int(tokens.flatten()[0]))
        self._skip = False

    def end(self) -> None:
        """What transformers calls at the end."""

    def _each(self) -> Iterator[int]:
        while (token := self._tokens.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            yield token

    def _run(self) -> None:
        import torch

        try:
            if self._seed is not None:
                torch.manual_seed(self._seed)
            with torch.inference_mode():
                self._model.generate(**self._arguments, streamer=self, stopping_criteria=[self._stops])
            self._tokens.put(None)
        except BaseException as error:
            self._tokens.put(error)

    def _stops(self, ids: Any, *_: Any, **__: Any) -> Any:
        import torch

        return torch.full((ids.shape[0],), self._left.is_set(), device=ids.device, dtype=torch.bool)


if __name__ == "__main__":
    process.run_program(lambda: main(configuration(sys.argv[1:])))
