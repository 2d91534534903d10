"""Compares what a template makes of conversations in training and in every engine that serves it.

The Jinja template runs in Python and in llama.cpp's own server, which Ollama starts too; the Ollama TEMPLATE in Go.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.chat_template import engines, llama_server
from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.engines import reference_tokenizer, special_words
from orchestrator.chat_template.refusals import refusal
from orchestrator.chat_template.registry import Definition, ToolDefinition, definition, tool_definition
from orchestrator.chat_template.served import Served, ask_server, questions, served
from orchestrator.chat_template.subject import Case, Subject
from orchestrator.chat_template.turns import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Result:
    """One template in one thinking mode."""

    template: str
    thinking: bool | None
    """None for templates that do not reason."""
    cases: int
    """Conversations compared."""
    refused: str = ""
    """Why it is not served at all."""
    single_turn: str = ""
    """Why conversations with earlier answers are left out, or ""."""
    mismatch: str = ""
    """The first difference in token ids, or in what a server makes of an answer."""
    unread: str = ""
    """Why llama.cpp's server cannot read the calls of a model that was trained so, or ""."""
    tools: bool = False
    """Whether the conversations offer tools, and call them."""

    @property
    def passed(self) -> bool:
        """Whether the served prompts are those of training, as far as they are served."""
        return not self.mismatch


@dataclass(frozen=True, slots=True)
class Engines:
    """What renders templates here beside Python; None for what is not installed."""

    go: Path | None = None
    server: str | None = None
    """llama.cpp's own."""

    @classmethod
    def found(cls) -> Engines:
        """Those of this machine."""
        return cls(engines.find_go(), llama_server.find())


def check(
    names: Sequence[str], model_folder: Path, engines: Engines, reference: bool = False, trusted: bool = False
) -> list[Result]:
    """The results for some templates, in both thinking modes where they have them.

    They are compared on the tokenizer of the model, or on one made of it that suits every template. Where an engine is
    missing, so is its part of the comparison. `trusted`: the model's own code may load its tokenizer. Raises InputError
    for an unknown template.
    """
    tokenizers = _Tokenizers(load_tokenizer(model_folder, trusted), reference)
    return _compare(names, model_folder, engines, tokenizers, with_tools=False)


def check_tools(
    names: Sequence[str], model_folder: Path, engines: Engines, reference: bool = False, trusted: bool = False
) -> list[Result]:
    """The same of the templates that models with tools are served with, which no Ollama TEMPLATE can be."""
    tokenizers = _Tokenizers(load_tokenizer(model_folder, trusted), reference)
    return _compare(names, model_folder, replace(engines, go=None), tokenizers, with_tools=True)


def _compare(
    names: Sequence[str], model_folder: Path, engines: Engines, tokenizers: _Tokenizers, with_tools: bool
) -> list[Result]:
    tokens = special_tokens(model_folder)
    subjects = [
        Subject(chosen, thinking, tokens, tool_definition(chosen.name) if with_tools else None)
        for chosen in map(definition, names)
        for thinking in ([True, False] if chosen.reasons else [False])
    ]
    answers = ask_server(engines.server, subjects, tokens) if engines.server else {}
    return [_result(subject, tokenizers, engines.go, answers.get(subject, ())) for subject in subjects]


class _Tokenizers:
    """Copies of a tokenizer, which LLaMA-Factory changes; shared, since copying takes longer than comparing."""

    def __init__(self, source: PreTrainedTokenizerBase, reference: bool) -> None:
        self._source, self._reference = source, reference
        self._made: dict[tuple[str, ...], PreTrainedTokenizerBase] = {}

    def for_template(self, definition: Definition, tools: ToolDefinition | None) -> PreTrainedTokenizerBase:
        """One that knows no special words but its own and those of this template."""
        words = tuple(special_words(definition, tools))
        if words not in self._made:
            extend = reference_tokenizer if self._reference else lambda source, _: copy.deepcopy(source)
            self._made[words] = extend(self._source, words)
        self._made[words].eos_token = self._source.eos_token
        return self._made[words]


def _result(subject: Subject, tokenizers: _Tokenizers, go: Path | None, answers: Sequence[str]) -> Result:
    name, thinking = subject.definition.name, subject.thinking
    mode = thinking if subject.definition.reasons else None
    tools = subject.tools is not None
    if refused := subject.refusal():
        return Result(name, mode, 0, refused=refused, tools=tools)
    single_turn = refusal(name, thinking, multi_turn=True) or ""
    tokenizer = tokenizers.for_template(subject.definition, subject.tools)
    asked = len(questions(subject))
    differences = _mismatches(subject, tokenizer, served(subject, tokenizer, go, answers[:asked]))
    mismatch = next(itertools.chain(differences, _misread(subject, answers[asked:])), "")
    counts = Result(name, mode, len(subject.cases()), single_turn=single_turn, mismatch=mismatch, tools=tools)
    return replace(counts, unread=subject.unread())


def _misread(subject: Subject, messages: Sequence[str]) -> Iterator[str]:
    """What llama.cpp's server made of answers, where that is not what training taught."""
    for one, message in zip(subject.taught() if messages else (), messages, strict=True):
        if made := one.misread(message):
            yield f"llama-server, answer of {one.shape}: {made}"


def _mismatches(subject: Subject, tokenizer: PreTrainedTokenizerBase, ways: Iterable[Served]) -> Iterator[str]:
    trained = Trained(subject.definition.name, tokenizer)
    for way in ways:
        for case, got in zip(way.cases, way.prompts, strict=True):
            if (wanted := trained.prompt(case, way.thinking)) != got:
                yield f"{way.by}, {case.shape}: {_difference(wanted, got, tokenizer)}"


@dataclass(slots=True)
class Trained:
    """Prompts as training makes them."""

    template: str
    tokenizer: PreTrainedTokenizerBase
    encoders: dict[tuple[str | None, bool], Encoder] = field(default_factory=dict)

    def prompt(self, case: Case, thinking: bool) -> list[int]:
        """The token ids of a case's prompt."""
        key = (case.default_system, thinking)
        if key not in self.encoders:
            self.encoders[key] = Encoder(self.template, self.tokenizer, thinking, case.default_system)
        return self.encoders[key].prompt_ids(case.messages, case.tools)


def _difference(trained: Sequence[int], served: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    pairs = zip(trained, served, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(trained), len(served)))
    wanted, got = (tokenizer.decode(list(ids[at : at + 4])) for ids in (trained, served))
    return f"token {at + 1} on: trained with {wanted!r}, served {got!r}"
