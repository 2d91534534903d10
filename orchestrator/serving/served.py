"""What Ollama makes of a model that was pushed to it: its prompts and answers against those of the run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.evaluation.calls import CallReader, same
from orchestrator.evaluation.rows import split_thinking
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError
from orchestrator.lib.files import read_json, read_json_lines
from orchestrator.models.gguf import GgufModel
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, bundle
from orchestrator.serving.endpoint import Endpoint, Reply, ask_all
from orchestrator.serving.prompts import Comparison, Told, compare, render_all, rendered, text_difference

if TYPE_CHECKING:
    from ollama import ShowResponse

UNSET = 0.8
"""Ollama's temperature where a Modelfile names none: DefaultOptions in api/types.go of github.com/ollama/ollama."""
MAKERS = {"GGUF": "the template inside the GGUF", "TEMPLATE": "TEMPLATE", "unknown": "an unknown template"}


@dataclass(frozen=True, slots=True)
class Served:
    """What asking the held-out rows through Ollama showed."""

    rows: int
    agreement: float
    """Share of rows answered, and thought about, as the same GGUF did when it was measured."""
    prompts: Comparison
    template: str
    """`TEMPLATE`, `GGUF` (its own template), or `unknown`: which one made the prompt."""
    capabilities: list[str] = field(default_factory=list)
    """What Ollama offers the user of the model: `completion`, `thinking`, `tools`, …"""
    unasked: str = ""
    """The first difference in the prompt of a client that says nothing of thinking."""
    temperature: float = 0.0
    """What the model answered with, and will be served with; it was measured with 0."""
    unreadable: int = 0
    """Answers that Ollama could not read and passed nothing on of: as a rule a call that ran out of tokens."""
    completed: int = 0
    """Answers that were measured as a broken call and are a whole one here."""

    def to_json(self) -> dict[str, Any]:
        """Flat, as scripts read it."""
        told = self.prompts
        return {
            "rows": self.rows,
            "agreement": self.agreement,
            "texts": told.texts,
            "equal_texts": told.equal_texts,
            "counted": told.counted,
            "equal_counts": told.equal_counts,
            "template": self.template,
            "capabilities": self.capabilities,
            "example": told.difference or self.unasked,
            "unreadable": self.unreadable,
            "completed": self.completed,
        }


UNASKED = Served(rows=0, agreement=1.0, prompts=Comparison(0, 0, 0, 0), template="unknown")
"""What a model that learnt no answers shows."""


def check(run: Run, kind: str, endpoint: Endpoint, shown: ShowResponse) -> Served:
    """Ask the held-out rows of a model that Ollama has, with its own parameters and `think` as trained, and compare.

    `shown` is what Ollama's /api/show says of the model.
    """
    rows = read_json_lines(run.folder / layout.PROMPTS)
    conversations, tools = [row["messages"] for row in rows], [row.get("tools", ()) for row in rows]
    asked = replace(endpoint, think=think(run, shown.capabilities or ()), as_served=True)
    texts = render_all(asked, conversations, tools)
    replies = ask_all(asked, conversations, _limit(run, kind), concurrency=1, tools=tools)
    told = [Told(text, reply.prompt_tokens) for text, reply in zip(texts, replies, strict=True)]
    answers = _Answers.of(run, kind, rows, replies)
    with vocabulary(run, kind) as gguf:
        return Served(
            rows=len(rows),
            agreement=answers.agreement,
            prompts=compare(rows, told, gguf.bos, gguf.tokenize),
            template=_template_used(run, kind, shown, gguf),
            capabilities=[str(capability) for capability in shown.capabilities or ()],
            unasked=_unasked(endpoint, rows[0], texts[0], gguf.bos),
            temperature=_temperature(run, kind),
            unreadable=sum(bool(reply.unreadable) for reply in replies),
            completed=answers.completed,
        )


def require_gate(served: Served, name: str, min_agreement: float) -> None:
    """Raise GateError unless Ollama's prompts are those of training and its answers those that were measured."""
    told, violations = served.prompts, []
    maker = f"Ollama used {MAKERS[served.template]}"
    if told.equal_texts < told.texts:
        different = f"{told.texts - told.equal_texts} of {told.texts} prompts are not those of training"
        violations.append(f"{name}: {different} ({told.difference}); {maker}")
    elif told.equal_counts < told.counted:
        different = f"{told.counted - told.equal_counts} of {told.counted} prompts have another number of tokens"
        violations.append(f"{name}: {different} than in training ({told.difference}); {maker}")
    if served.unasked:
        violations.append(f"{name}: a client that does not set `think` gets another prompt ({served.unasked}); {maker}")
    if served.agreement < min_agreement:
        violations.append(
            f"{name}: Ollama answers {100 * served.agreement:.0f} % of {served.rows} rows as the GGUF was measured to, "
            f"below {100 * min_agreement:.0f} %{_sampled(served)}{_calls(served)}"
        )
    if violations:
        raise GateError(
            "\n".join(violations), f"Do not use {name}; `ollama rm {name}` removes it. Is Ollama up to date?"
        )


def _sampled(served: Served) -> str:
    if not served.temperature:
        return ""
    cure = "`export.ollama: {parameters: {temperature: 0}}` serves what was measured"
    return f"; it answers with temperature {served.temperature:g}, and was measured with 0: {cure}"


def summary(served: Served) -> str:
    """A line on what was proven."""
    share = f"{100 * served.agreement:.0f} % of {served.rows} answers are those measured"
    return f"{share}{_calls(served)}; {served.prompts}, made by {MAKERS[served.template]}"


def _calls(served: Served) -> str:
    """What became of calls that are none."""
    unreadable = f"; {served.unreadable} it could not read and answered with an error" if served.unreadable else ""
    completed = f"; {served.completed} measured as a broken call came whole" if served.completed else ""
    return unreadable + completed


def vocabulary(run: Run, kind: str) -> AbstractContextManager[GgufModel]:
    """The tokenizer and the metadata of what answers: the GGUF, or the base's beneath an adapter."""
    return GgufModel(bundle.files(run, kind)[1], vocabulary_only=True)


def think(run: Run, capabilities: Sequence[str]) -> bool | None:
    """Ollama's `think` as trained: it refuses True for a model that it does not take for one that can."""
    trained, _ = artifacts.thinking(run)
    return None if trained and "thinking" not in capabilities else trained


def _limit(run: Run, kind: str) -> int:
    return int(read_json(run.folder / layout.stage_config(f"ask-{kind}"))["max_new_tokens"])


def _temperature(run: Run, kind: str) -> float:
    return float(bundle.read(run.folder / f"{layout.MODELFILE}.{kind}").parameters.get("temperature", UNSET))


@dataclass(frozen=True, slots=True)
class _Answers:
    agreement: float
    completed: int

    @classmethod
    def of(cls, run: Run, kind: str, rows: Sequence[dict[str, Any]], replies: Sequence[Reply]) -> _Answers:
        """The answers against those measured; thoughts, texts and calls apart, for servers put them together in their
        own ways."""
        measured = {row["id"]: row["prediction"] for row in read_json_lines(artifacts.answers(run, kind))}
        words, reader = artifacts.thinking(run)[1], artifacts.call_reader(run)
        pairs = [(reply, measured[row["id"]]) for row, reply in zip(rows, replies, strict=True)]
        same = sum(_same(reply, answer, words, reader) for reply, answer in pairs)
        return cls(same / len(rows), sum(_is_completed(reply, answer, reader) for reply, answer in pairs))


def _same(reply: Reply, measured: str, words: tuple[str, str], reader: CallReader | None) -> bool:
    """Whether an answer is the one measured; calls that the server tells apart are compared as calls.

    One that the server could not read is the same as a broken call: there is no call in either.
    """
    thought, answer = split_thinking(measured)
    if reply.unreadable:
        return reader is not None and reader.is_broken(answer)
    if reply.calls and reader:
        before = answer.partition(reader.start)[0].strip() if reader.start else ""
        told = split_thinking(replace(reply, calls=()).whole(words))
        return told == (thought, before) and same(reply.calls, reader.read(answer))
    return split_thinking(reply.whole(words, reader)) == (thought, answer)


def _is_completed(reply: Reply, measured: str, reader: CallReader | None) -> bool:
    """Whether a call that was measured as broken is whole: once one has begun, llama.cpp's server lets the model write
    nothing but calls of the tools on offer. It counts as another answer, for it was not measured."""
    return bool(reply.calls) and reader is not None and reader.is_broken(split_thinking(measured)[1])


def _template_used(run: Run, kind: str, shown: ShowResponse, gguf: GgufModel) -> str:
    """Which template makes the prompt: /api/show answers the one in use."""
    known = {
        bundle.read(run.folder / f"{layout.MODELFILE}.{kind}").template: "TEMPLATE",
        gguf.metadata("tokenizer.chat_template"): "GGUF",
    }
    return known.get(shown.template, "unknown") if shown.template else "unknown"


def _unasked(endpoint: Endpoint, row: dict[str, Any], asked: str | None, bos: str | None) -> str:
    if asked is None or row["ids"] is None:
        return ""
    plain = rendered(endpoint, row["messages"], row.get("tools", ()))
    return "" if plain in (None, asked) else text_difference(row, str(plain), bos)
