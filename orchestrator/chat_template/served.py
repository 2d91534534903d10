"""What each engine that serves a template makes of conversations: Jinja in Python, Go, and llama.cpp's own server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.chat_template import engines, llama_server
from orchestrator.chat_template.jinja import render_messages
from orchestrator.chat_template.messages import with_parsed_arguments
from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.subject import Case, Subject
from orchestrator.chat_template.taught import QUESTION
from orchestrator.chat_template.tool_cases import OFFERED
from orchestrator.chat_template.turns import SpecialTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Served:
    """What one engine made of some cases."""

    by: str
    thinking: bool
    """The mode of training that these prompts are to equal."""
    cases: Sequence[Case]
    prompts: Sequence[list[int]]
    """Token ids."""


def served(
    subject: Subject, tokenizer: PreTrainedTokenizerBase, go: Path | None, answers: Sequence[str]
) -> Iterator[Served]:
    """Every way of serving the template here; `answers` are those of llama.cpp's server, none without it."""
    yield _by_python(subject, tokenizer)
    if go:
        for adds_bos in subject.runtimes():
            yield _by_ollama(subject, tokenizer, go, adds_bos)
    if answers:
        yield from _by_llama_server(subject, tokenizer, answers)


def _by_python(subject: Subject, tokenizer: PreTrainedTokenizerBase) -> Served:
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
    return Served("Jinja", subject.thinking, cases, _encoded(tokenizer, texts))


def _by_ollama(subject: Subject, tokenizer: PreTrainedTokenizerBase, go: Path, adds_bos: bool) -> Served:
    cases = [case for case in subject.cases() if not case.thought]
    shapes = [subject.definition.with_default_system(case.default_system) for case in cases]
    templates = [ollama_template(shape, subject.tokens, subject.thinking, adds_bos) for shape in shapes]
    asked = [{"template": of, "messages": case.messages} for of, case in zip(templates, cases, strict=True)]
    bos = [tokenizer.bos_token_id] if adds_bos else []
    prompts = [[*bos, *ids] for ids in _encoded(tokenizer, engines.render(go, asked))]
    return Served("Ollama", subject.thinking, cases, prompts)


SAID = {None: "llama-server", True: "llama-server, told to think", False: "llama-server, told not to think"}
"""What a client says of thinking → the engine, and that."""


def ask_server(server: str, subjects: Sequence[Subject], tokens: SpecialTokens) -> dict[Subject, list[str]]:
    """All texts of each subject, in the order of `questions`, and all answers it was taught, from one process."""
    asked = {subject: [*_prompts(subject), *_answers(subject)] for subject in subjects if not subject.refusal()}
    texts = iter(llama_server.render(server, [case for cases in asked.values() for case in cases], tokens))
    return {subject: list(itertools.islice(texts, len(cases))) for subject, cases in asked.items()}


def _prompts(subject: Subject) -> Iterator[llama_server.Rendering]:
    for said, case in questions(subject):
        yield llama_server.Rendering(subject.jinja(case), case.messages, said, case.tools)


def _answers(subject: Subject) -> Iterator[llama_server.Rendering]:
    offered, template = OFFERED if subject.tools else (), subject.jinja(Case(QUESTION, None))
    for one in subject.taught():
        yield llama_server.Rendering(template, QUESTION, tools=offered, answer=one.answer)


def questions(subject: Subject) -> list[tuple[bool | None, Case]]:
    """What a client says of thinking, and a case; each template is a start of the server, so defaults are left out."""
    cases = [case for case in subject.cases() if case.default_system is None]
    return [(said, case) for said in (SAID if subject.definition.reasons else (None,)) for case in cases]


def _by_llama_server(subject: Subject, tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> Iterator[Served]:
    """What a client says of thinking changes nothing, but that a model which thinks can be told not to."""
    bos = subject.tokens.bos or ""
    for (said, case), answer in zip(questions(subject), answers, strict=True):
        rendered = render_messages(subject.jinja(case), case.messages, subject.tokens, tools=case.tools)
        begins = rendered.startswith(bos)
        prompts = _encoded(tokenizer, [f"{bos if begins else ''}{answer}"])
        yield Served(SAID[said], subject.thinking and said is not False, [case], prompts)


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]
