"""Findings about tools and thoughts: how many rows have them, and what training and serving make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.chat_template.refusals import read_by_servers, tool_refusal, unread
from orchestrator.chat_template.registry import definition, tool_definition
from orchestrator.data.canonical import has_tools, untrainable
from orchestrator.data.checks.finding import MAX_ROWS, Finding, Place, finding
from orchestrator.data.conversation import Conversation
from orchestrator.data.tools import declared
from orchestrator.evaluation.rows import split_thinking
from orchestrator.lib.words import agreeing, counted

_NAMED = 6  # keys in one message


@dataclass(frozen=True, slots=True)
class Mode:
    """How the rows will be trained."""

    template: str
    reasons: bool
    """Whether LLaMA-Factory gives answers without a thought an empty one."""
    thinking: bool

    @classmethod
    def of(cls, template: str, thinking: bool) -> Mode:
        """The mode of a template. Raises InputError for an unknown one."""
        return cls(template, definition(template).reasons, thinking)


@dataclass
class Noted:
    """How many rows, and where the first of them are: a million places would take much memory."""

    count: int = 0
    places: list[Place] = field(default_factory=list)

    def add(self, row: Conversation) -> None:
        """One more."""
        self.count += 1
        if len(self.places) < MAX_ROWS:
            self.places.append((row.source, row.row))


@dataclass
class Speech:
    """Notes what the rows that flow through it hold besides questions and answers."""

    mode: Mode | None = None
    rows: int = 0
    thinking: Noted = field(default_factory=Noted)
    silent: Noted = field(default_factory=Noted)
    """Rows in which no answer has a thought."""
    hollow: Noted = field(default_factory=Noted)
    """Rows in which some answer has none: LLaMA-Factory looks at each for itself."""
    dropped: Counter[str] = field(default_factory=Counter)
    reduced: Noted = field(default_factory=Noted)
    toolless: Noted = field(default_factory=Noted)
    unserved: Noted = field(default_factory=Noted)
    unread: Noted = field(default_factory=Noted)
    unfit: Noted = field(default_factory=Noted)
    unfit_reason: str = ""
    """Of the first of them."""

    def findings(self) -> Iterator[Finding]:
        """Yields what there is to say about all of them."""
        yield from self._tools()
        yield from self._thoughts()

    def _tools(self) -> Iterator[Finding]:
        if self.reduced.count:
            yield finding("tools_reduced", "info", self._reduced(), self.reduced.places)
        if self.mode and self.unserved.count:
            yield finding("tools_not_served", "error", self._unserved(self.mode), self.unserved.places)
        if self.mode and self.unread.count:
            yield finding("calls_not_read", "error", self._unread(self.mode), self.unread.places)
        if self.mode and self.unfit.count:
            message = (
                f"{self._share(self.unfit, 'have tools')} or calls that template {self.mode.template} cannot "
                f"train: {self.unfit_reason}"
            )
            yield finding("tools_not_trained", "error", message, self.unfit.places)
        if self.toolless.count:
            counts = f"{self._share(self.toolless, 'call tools')} and {agreeing(self.toolless.count, 'offer')} none"
            message = f"{counts}: servers read calls only where tools are offered"
            yield finding("calls_without_tools", "warning", message, self.toolless.places)

    def _reduced(self) -> str:
        keys = [f"{path} ({counted(count, 'row')})" for path, count in self.dropped.most_common(_NAMED)]
        more = f" and {len(self.dropped) - _NAMED} more" if len(self.dropped) > _NAMED else ""
        return (
            f"{self._share(self.reduced, 'have tools')} with parts that Ollama leaves out or writes "
            f"differently, so they are trained without: {', '.join(keys)}{more}"
        )

    def _unserved(self, mode: Mode) -> str:
        reason = tool_refusal(mode.template, mode.thinking)
        return (
            f"{self._share(self.unserved, 'have tools')}, and template {mode.template} cannot be "
            f"served with tools: {reason}; choose {_instead(mode)}"
        )

    def _unread(self, mode: Mode) -> str:
        reason = unread(tool_definition(mode.template).call_format)
        return (
            f"{self._share(self.unread, 'have tools')}, and {reason} (template {mode.template}); "
            f"choose {_instead(mode)}, or accept it for `orchestrator serve`, which reads them"
        )

    def _share(self, some: Noted, predicate: str) -> str:
        """`2 of 5 rows have tools`."""
        return f"{some.count} of {counted(self.rows, 'row')} {agreeing(some.count, predicate)}"

    def look(self, row: Conversation) -> None:
        """Take one more row into account."""
        self.rows += 1
        if row.tools and (dropped := declared(row.tools).dropped):
            self.dropped.update(dropped)
            self.reduced.add(row)
        if not row.tools and any(turn.role == "function_call" for turn in row.messages):
            self.toolless.add(row)
        if self.mode and has_tools(row):
            self._fit(row, self.mode)
        answers = [row.chosen] if row.chosen else [turn.content for turn in row.messages if turn.role in _ANSWERS]
        thoughts = [bool(split_thinking(text)[0]) for text in answers]
        if thoughts:  # texts of a pretraining answer nothing
            (self.thinking if any(thoughts) else self.silent).add(row)
        if not all(thoughts):
            self.hollow.add(row)

    def _fit(self, row: Conversation, mode: Mode) -> None:
        if tool_refusal(mode.template, mode.thinking):
            self.unserved.add(row)
        elif reason := untrainable(row, mode.template):
            self.unfit_reason = self.unfit_reason or reason
            self.unfit.add(row)
        elif unread(tool_definition(mode.template).call_format):
            self.unread.add(row)

    def _thoughts(self) -> Iterator[Finding]:
        none = f"{self.silent.count} {agreeing(self.silent.count, 'have none')}"
        counts = f"{self._share(self.thinking, 'have a thought')} in an answer, {none}"
        if self.thinking.count:
            made = f"; {_made_of_thoughts(self.mode)}" if self.mode else ""
            yield finding("thoughts", "info", counts + made, self.thinking.places)
        if self.hollow.count and self.mode and self.mode.reasons and self.mode.thinking:
            message = (
                f"{self._share(self.hollow, 'teach an empty')} thought: with model.thinking: true "
                f"{self.mode.template} answers <think></think> where an answer has none"
            )
            yield finding("empty_thoughts", "warning", message, self.hollow.places)


def _instead(mode: Mode) -> str:
    other = read_by_servers(mode.template, mode.thinking)
    return f"{other}, the same with tools and calls as qwen's has them" if other else "another, such as qwen"


_ANSWERS = ("assistant", "function_call")


def _made_of_thoughts(mode: Mode) -> str:
    """What training does with thoughts (ReasoningTemplate of llamafactory/data/template.py)."""
    if not mode.reasons:
        return f"template {mode.template} knows no thoughts: they are trained, and answered, as text"
    if mode.thinking:
        return "with model.thinking: true they are learnt, and servers show them apart from the answer"
    return "with model.thinking: false training takes them out, and every question ends with an empty one"
