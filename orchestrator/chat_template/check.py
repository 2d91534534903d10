"""Compares what a template makes of conversations in training and in every engine that serves it.

The Jinja template runs in Python and in llama.cpp's own server, which Ollama starts too; the Ollama TEMPLATE in Go.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.chat_template import engines, llama_server
from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.engines import reference_tokenizer, special_words
from orchestrator.chat_template.jinja import Message, jinja_template, render_messages
from orchestrator.chat_template.messages import with_parsed_arguments
from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.registry import Definition, ToolDefinition, definition, tool_definition
from orchestrator.chat_template.taught import QUESTION, Taught, taught
from orchestrator.chat_template.tool_cases import OFFERED, tool_conversations
from orchestrator.chat_template.tool_formats import unread
from orchestrator.chat_template.turns import SpecialTokens, refusal, special_tokens, starts_with_bos, tool_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTIONS = (
    "What is the capital of France?",
    "Is \"C:\\new\" 'quoted'? {{ .Content }} {{content}} {% raw %}\n\nAnd the second line?",
    "今天天气怎么样？🙂👨\u200d👩\u200d👧\u3000请回答\u2028好吗",
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


@dataclass(frozen=True, slots=True)
class _Case:
    messages: tuple[Message, ...]
    default_system: str | None
    thought: bool = False
    """Whether an earlier answer has a thought, which clients of Ollama do not send back."""
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def shape(self) -> str:
        return "+".join(message["role"] for message in self.messages)


@dataclass(frozen=True, slots=True)
class _Subject:
    definition: Definition
    thinking: bool
    tokens: SpecialTokens
    tools: ToolDefinition | None = None
    """For a model that was trained with tools."""

    def cases(self) -> list[_Case]:
        alone = refusal(self.definition.name, self.thinking, multi_turn=True)
        words = self.definition.thought_words if self.definition.reasons else None
        plain = [case for case in _cases(words) if len(case.messages) < 3 or not alone]
        if self.tools is None:
            return plain
        offered = tool_conversations(self.tools, self.definition.thought_words)
        with_tools = [_Case(tuple(messages), None, tools=tuple(tools)) for messages, tools in offered]
        return [*with_tools, *(case for case in plain if case.default_system is None)]

    def refusal(self) -> str | None:
        """Why it is not served at all, or None."""
        refused = tool_refusal if self.tools else refusal
        return refused(self.definition.name, self.thinking)

    def jinja(self, case: _Case) -> str:
        """The chat template that a case is served with."""
        shape = self.definition.with_default_system(case.default_system)
        return jinja_template(shape, self.tokens, self.thinking, self.tools)

    def unread(self) -> str:
        """Why llama.cpp's server cannot read its calls, or ""."""
        return (unread(self.tools.call_format) if self.tools else None) or ""

    def taught(self) -> list[Taught]:
        """Answers that llama.cpp's server is to read calls and thoughts out of."""
        if self.tools is None or self.unread():
            return []
        return list(taught(self.definition, self.thinking, self.tokens, self.tools))

    def runtimes(self) -> list[bool]:
        """Whether the runtime adds BOS: each way in which this template can be served."""
        return [False, True] if starts_with_bos(self.definition, self.tokens) else [False]


def check(names: Sequence[str], model_folder: Path, engines: Engines, reference: bool = False) -> list[Result]:
    """The results for some templates, in both thinking modes where they have them.

    They are compared on the tokenizer of the model, or on one made of it that suits every template. Where an engine is
    missing, so is its part of the comparison. Raises InputError for an unknown template.
    """
    return _compare(names, model_folder, engines, reference, with_tools=False)


def check_tools(names: Sequence[str], model_folder: Path, engines: Engines, reference: bool = False) -> list[Result]:
    """The same of the templates that models with tools are served with, which no Ollama TEMPLATE can be."""
    return _compare(names, model_folder, replace(engines, go=None), reference, with_tools=True)


def _compare(
    names: Sequence[str], model_folder: Path, engines: Engines, reference: bool, with_tools: bool
) -> list[Result]:
    tokens = special_tokens(model_folder)
    subjects = [
        _Subject(chosen, thinking, tokens, tool_definition(chosen.name) if with_tools else None)
        for chosen in map(definition, names)
        for thinking in ([True, False] if chosen.reasons else [False])
    ]
    tokenizers = _Tokenizers(load_tokenizer(model_folder), reference)
    answers = _ask_server(engines.server, subjects, tokens) if engines.server else {}
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


def _result(subject: _Subject, tokenizers: _Tokenizers, go: Path | None, answers: Sequence[str]) -> Result:
    name, thinking = subject.definition.name, subject.thinking
    mode = thinking if subject.definition.reasons else None
    tools = subject.tools is not None
    if refused := subject.refusal():
        return Result(name, mode, 0, refused=refused, tools=tools)
    single_turn = refusal(name, thinking, multi_turn=True) or ""
    tokenizer = tokenizers.for_template(subject.definition, subject.tools)
    asked = len(_questions(subject))
    differences = _mismatches(subject, tokenizer, _served(subject, tokenizer, go, answers[:asked]))
    mismatch = next(itertools.chain(differences, _misread(subject, answers[asked:])), "")
    counts = Result(name, mode, len(subject.cases()), single_turn=single_turn, mismatch=mismatch, tools=tools)
    return replace(counts, unread=subject.unread())


def _misread(subject: _Subject, messages: Sequence[str]) -> Iterator[str]:
    """What llama.cpp's server made of answers, where that is not what training taught."""
    for one, message in zip(subject.taught() if messages else (), messages, strict=True):
        if made := one.misread(message):
            yield f"llama-server, answer of {one.shape}: {made}"


def _mismatches(subject: _Subject, tokenizer: PreTrainedTokenizerBase, ways: Iterable[_Served]) -> Iterator[str]:
    trained = _Trained(subject.definition.name, tokenizer)
    for served in ways:
        for case, got in zip(served.cases, served.prompts, strict=True):
            if (wanted := trained.prompt(case, served.thinking)) != got:
                yield f"{served.by}, {case.shape}: {_difference(wanted, got, tokenizer)}"


@dataclass(slots=True)
class _Trained:
    """Prompts as training makes them."""

    template: str
    tokenizer: PreTrainedTokenizerBase
    encoders: dict[tuple[str | None, bool], Encoder] = field(default_factory=dict)

    def prompt(self, case: _Case, thinking: bool) -> list[int]:
        """The token ids of a case's prompt."""
        key = (case.default_system, thinking)
        if key not in self.encoders:
            self.encoders[key] = Encoder(self.template, self.tokenizer, thinking, case.default_system)
        return self.encoders[key].prompt_ids(case.messages, case.tools)


@dataclass(frozen=True, slots=True)
class _Served:
    """What one engine made of some cases."""

    by: str
    thinking: bool
    """The mode of training that these prompts are to equal."""
    cases: Sequence[_Case]
    prompts: Sequence[list[int]]
    """Token ids."""


def _served(
    subject: _Subject, tokenizer: PreTrainedTokenizerBase, go: Path | None, answers: Sequence[str]
) -> Iterator[_Served]:
    """Every way of serving the template here; `answers` are those of llama.cpp's server, none without it."""
    yield _by_python(subject, tokenizer)
    if go:
        for adds_bos in subject.runtimes():
            yield _by_ollama(subject, tokenizer, go, adds_bos)
    if answers:
        yield from _by_llama_server(subject, tokenizer, answers)


def _by_python(subject: _Subject, tokenizer: PreTrainedTokenizerBase) -> _Served:
    cases, options = subject.cases(), {"add_generation_prompt": True, "tokenize": False}
    texts = [
        tokenizer.apply_chat_template(
            with_parsed_arguments(case.messages),
            tools=list(case.tools) or None,
            chat_template=subject.jinja(case),
            **options,
        )
        for case in cases
    ]
    return _Served("Jinja", subject.thinking, cases, _encoded(tokenizer, texts))


def _by_ollama(subject: _Subject, tokenizer: PreTrainedTokenizerBase, go: Path, adds_bos: bool) -> _Served:
    cases = [case for case in subject.cases() if not case.thought]
    shapes = [subject.definition.with_default_system(case.default_system) for case in cases]
    templates = [ollama_template(shape, subject.tokens, subject.thinking, adds_bos) for shape in shapes]
    asked = [{"template": of, "messages": case.messages} for of, case in zip(templates, cases, strict=True)]
    bos = [tokenizer.bos_token_id] if adds_bos else []
    prompts = [[*bos, *ids] for ids in _encoded(tokenizer, engines.render(go, asked))]
    return _Served("Ollama", subject.thinking, cases, prompts)


SAID = {None: "llama-server", True: "llama-server, told to think", False: "llama-server, told not to think"}
"""What a client says of thinking → the engine, and that."""


def _ask_server(server: str, subjects: Sequence[_Subject], tokens: SpecialTokens) -> dict[_Subject, list[str]]:
    """All texts of each subject, in the order of `_questions`, and all answers it was taught, from one process."""
    asked = {subject: [*_prompts(subject), *_answers(subject)] for subject in subjects if not subject.refusal()}
    texts = iter(llama_server.render(server, [case for cases in asked.values() for case in cases], tokens))
    return {subject: list(itertools.islice(texts, len(cases))) for subject, cases in asked.items()}


def _prompts(subject: _Subject) -> Iterator[llama_server.Case]:
    for said, case in _questions(subject):
        yield llama_server.Case(subject.jinja(case), case.messages, said, case.tools)


def _answers(subject: _Subject) -> Iterator[llama_server.Case]:
    offered, template = OFFERED if subject.tools else (), subject.jinja(_Case(QUESTION, None))
    for one in subject.taught():
        yield llama_server.Case(template, QUESTION, tools=offered, answer=one.answer)


def _questions(subject: _Subject) -> list[tuple[bool | None, _Case]]:
    """What a client says of thinking, and a case; each template is a start of the server, so defaults are left out."""
    cases = [case for case in subject.cases() if case.default_system is None]
    return [(said, case) for said in (SAID if subject.definition.reasons else (None,)) for case in cases]


def _by_llama_server(
    subject: _Subject, tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]
) -> Iterator[_Served]:
    """What a client says of thinking changes nothing, but that a model which thinks can be told not to."""
    bos = subject.tokens.bos or ""
    for (said, case), answer in zip(_questions(subject), answers, strict=True):
        rendered = render_messages(subject.jinja(case), case.messages, subject.tokens, tools=case.tools)
        begins = rendered.startswith(bos)
        prompts = _encoded(tokenizer, [f"{bos if begins else ''}{answer}"])
        yield _Served(SAID[said], subject.thinking and said is not False, [case], prompts)


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def _difference(trained: Sequence[int], served: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    pairs = zip(trained, served, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(trained), len(served)))
    wanted, got = (tokenizer.decode(list(ids[at : at + 4])) for ids in (trained, served))
    return f"token {at + 1} on: trained with {wanted!r}, served {got!r}"


def _cases(thought_words: tuple[str, str] | None) -> Iterator[_Case]:
    """Questions alone and after a system text, a first turn or both; with the template's default, none, and another.

    Where a template reasons, also after an answer with a thought.
    """
    for number, question in enumerate(QUESTIONS):
        asked = _said("user", question)
        system, again = _said("system", SYSTEMS[number % 2]), _said("user", QUESTIONS[number - 1])
        answered = (asked, _said("assistant", ANSWERS[number % 2]), again)
        for default in (None, "", "自定义的“系统”\u3000提示。"):
            yield _Case((asked,), default)
            yield _Case(answered, default)
        yield _Case((system, asked), None)
        yield _Case((system, *answered), None)
        if thought_words:
            opening, closing = thought_words
            thought = _said("assistant", f"{opening}嗯，{number}…{closing}{ANSWERS[number % 2]}")
            yield _Case((asked, thought, again), None, thought=True)


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
