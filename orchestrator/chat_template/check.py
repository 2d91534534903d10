"""Compares what a template makes of conversations in training, in its Jinja template and in its Ollama TEMPLATE."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.chat_template import golang
from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.jinja import Message, jinja_template
from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.reference import reference_tokenizer, special_words
from orchestrator.chat_template.refusals import refusal
from orchestrator.chat_template.registry import Definition, definition
from orchestrator.chat_template.tokens import SpecialTokens, special_tokens
from orchestrator.chat_template.turns import starts_with_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTIONS = (
    "What is the capital of France?",
    "Is \"C:\\new\" 'quoted'? {{ .Content }} {{content}} {% raw %}\n\nAnd the second line?",
    "今天天气怎么样？🙂👨\u200d👩\u200d👧\u3000请回答",
    "  indented, and ending with a new line\n",
)
SYSTEMS = ("You are a careful assistant.", '你是一个“助手”。\n只用一个词回答 {{ x }} \\ "是"。')
ANSWERS = ("Paris.", "没问题，{{ 是的 }}。\n第二行！")


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
    """The first difference in token ids."""

    @property
    def passed(self) -> bool:
        """Whether the served prompts are those of training, as far as they are served."""
        return not self.mismatch


@dataclass(frozen=True, slots=True)
class _Case:
    messages: tuple[Message, ...]
    default_system: str | None

    @property
    def shape(self) -> str:
        return "+".join(message["role"] for message in self.messages)


@dataclass(frozen=True, slots=True)
class _Subject:
    definition: Definition
    thinking: bool
    tokens: SpecialTokens

    def cases(self) -> list[_Case]:
        alone = refusal(self.definition.name, self.thinking, multi_turn=True)
        return [case for case in _cases() if len(case.messages) < 3 or not alone]

    def runtimes(self) -> list[bool]:
        """Whether the runtime adds BOS: each way in which this template can be served."""
        return [False, True] if starts_with_bos(self.definition, self.tokens) else [False]


def check(names: Sequence[str], model_folder: Path, go: Path | None, reference: bool = False) -> list[Result]:
    """The results for some templates, in both thinking modes where they have them.

    They are compared on the tokenizer of the model, or on one made of it that suits every template. Without Go only
    training and Jinja are. Raises InputError for an unknown template.
    """
    tokens = special_tokens(model_folder)
    subjects = [
        _Subject(chosen, thinking, tokens)
        for chosen in map(definition, names)
        for thinking in ([True, False] if chosen.reasons else [False])
    ]
    tokenizers = _Tokenizers(load_tokenizer(model_folder), reference)
    return [_result(subject, tokenizers, go) for subject in subjects]


class _Tokenizers:
    """Copies of a tokenizer, which LLaMA-Factory changes; shared, since copying takes longer than comparing."""

    def __init__(self, source: PreTrainedTokenizerBase, reference: bool) -> None:
        self._source, self._reference = source, reference
        self._made: dict[tuple[str, ...], PreTrainedTokenizerBase] = {}

    def for_template(self, definition: Definition) -> PreTrainedTokenizerBase:
        """One that knows no special words but its own and those of this template."""
        words = tuple(special_words(definition))
        if words not in self._made:
            extend = reference_tokenizer if self._reference else lambda source, _: copy.deepcopy(source)
            self._made[words] = extend(self._source, definition)
        self._made[words].eos_token = self._source.eos_token
        return self._made[words]


def _result(subject: _Subject, tokenizers: _Tokenizers, go: Path | None) -> Result:
    name, thinking = subject.definition.name, subject.thinking
    mode = thinking if subject.definition.reasons else None
    if refused := refusal(name, thinking):
        return Result(name, mode, 0, refused=refused)
    single_turn = refusal(name, thinking, multi_turn=True) or ""
    mismatch = next(_mismatches(subject, tokenizers.for_template(subject.definition), go), "")
    return Result(name, mode, len(subject.cases()), single_turn=single_turn, mismatch=mismatch)


def _mismatches(subject: _Subject, tokenizer: PreTrainedTokenizerBase, go: Path | None) -> Iterator[str]:
    cases = subject.cases()
    encoders = {
        default: Encoder(subject.definition.name, tokenizer, subject.thinking, default)
        for default in dict.fromkeys(case.default_system for case in cases)
    }
    trained = [encoders[case.default_system].prompt_ids(case.messages) for case in cases]
    for by, served in _served(subject, tokenizer, go):
        for case, wanted, got in zip(cases, trained, served, strict=True):
            if wanted != got:
                yield f"{by}, {case.shape}: {_difference(wanted, got, tokenizer)}"


def _served(
    subject: _Subject, tokenizer: PreTrainedTokenizerBase, go: Path | None
) -> Iterator[tuple[str, list[list[int]]]]:
    """(who, token ids of each case's prompt) for every way of serving the template."""
    cases, tokens, thinking = subject.cases(), subject.tokens, subject.thinking
    shapes = [subject.definition.with_default_system(case.default_system) for case in cases]
    templates = [jinja_template(shape, tokens, thinking) for shape in shapes]
    options = {"add_generation_prompt": True, "tokenize": False}
    texts = [
        tokenizer.apply_chat_template(list(case.messages), chat_template=template, **options)
        for case, template in zip(cases, templates, strict=True)
    ]
    yield "Jinja", [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    if go is None:
        return
    for adds_bos in subject.runtimes():
        templates = [ollama_template(shape, tokens, thinking, adds_bos) for shape in shapes]
        asked = [{"template": of, "messages": case.messages} for of, case in zip(templates, cases, strict=True)]
        bos = [tokenizer.bos_token_id] if adds_bos else []
        texts = golang.render(go, asked)
        yield "Ollama", [[*bos, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]


def _difference(trained: Sequence[int], served: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    pairs = zip(trained, served, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(trained), len(served)))
    wanted, got = (tokenizer.decode(list(ids[at : at + 4])) for ids in (trained, served))
    return f"token {at + 1} on: trained with {wanted!r}, served {got!r}"


def _cases() -> Iterator[_Case]:
    """Questions alone and after a system text, a first turn or both; with the template's default, none, and another."""
    for number, question in enumerate(QUESTIONS):
        asked = _said("user", question)
        system, again = _said("system", SYSTEMS[number % 2]), _said("user", QUESTIONS[number - 1])
        answered = (asked, _said("assistant", ANSWERS[number % 2]), again)
        for default in (None, "", "自定义的“系统”\u3000提示。"):
            yield _Case((asked,), default)
            yield _Case(answered, default)
        yield _Case((system, asked), None)
        yield _Case((system, *answered), None)


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
