"""Rows that are longer than the model will read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.data.checks.finding import Finding, Place, Severity, finding
from orchestrator.data.conversation import Conversation
from orchestrator.lib.words import agreeing, counted

# A tokenizer never makes more tokens than the text has bytes; a template adds these at most for a turn.
_TEMPLATE_TOKENS = 64
TOLERABLE_SHARE = 0.01  # of the rows; more than a few cut rows teach the model not to see its question
BINS = 20
SAMPLE = 2000  # rows counted for the histogram


_SPOKEN = {"observation": "user", "function_call": "assistant"}


@dataclass
class TokenCounter:
    """Counts the rows that flow through it: a sample of all, and every row that could exceed the cut-off."""

    count: Callable[[Conversation], int]
    cutoff_len: int
    sample: list[int] = field(default_factory=list)
    over: list[tuple[Place, int, str]] = field(default_factory=list)
    longest: int = 0
    total: int = 0

    def look(self, row: Conversation) -> None:
        """Take one more row into account."""
        self.total += 1
        if len(self.sample) >= SAMPLE and most_tokens(row) <= self.cutoff_len:
            return
        tokens = self.count(row)
        self.longest = max(self.longest, tokens)
        if len(self.sample) < SAMPLE:
            self.sample.append(tokens)
        if tokens > self.cutoff_len:
            self.over.append(((row.source, row.row), tokens, row.prompt[:80]))

    def summary(self) -> str:
        """One line about the sample: median, 95th percentile, longest, and the cut-off."""
        ordered = sorted(self.sample)
        median, high = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
        counts = f"half have up to {median}, 95 % up to {high}, the longest {self.longest}"
        return f"tokens a row: {counts}; cutoff_len is {self.cutoff_len}"

    def to_json(self) -> dict[str, Any]:
        """The sample as a histogram, for scripts and the report: bins of equal width from 0."""
        width = max(1, -(-(max(self.sample, default=0) + 1) // BINS))
        bins = [sum(tokens // width == number for tokens in self.sample) for number in range(BINS)]
        return {"tokens": {"cutoff_len": self.cutoff_len, "longest": self.longest, "bin_width": width, "bins": bins}}

    def findings(self) -> Iterator[Finding]:
        """Yields tokens_over_cutoff, if any row is too long."""
        if not self.over:
            return
        cut = max(tokens for _, tokens, _ in self.over) - self.cutoff_len
        over = f"{len(self.over)} of {counted(self.total, 'row')} {agreeing(len(self.over), 'exceed')}"
        message = (
            f"{over} cutoff_len {self.cutoff_len}; of the longest, with {self.longest} tokens, LLaMA-Factory would cut "
            f"{cut} off the end of the prompt, where the question is"
        )
        severity: Severity = "error" if len(self.over) > TOLERABLE_SHARE * self.total else "warning"
        examples = [f"{place[0]}:{place[1]} {tokens} tokens: {text}" for place, tokens, text in self.over[:5]]
        yield finding("tokens_over_cutoff", severity, message, [place for place, _, _ in self.over], examples)


def token_counter(model: Path, template: str, thinking: bool) -> Callable[[Conversation], int]:
    """Returns a function that counts a row's tokens with a model folder's tokenizer and the served chat template, of a
    pair those of the longer one.

    Tools count as their text: what stands around them differs from template to template, and `prepare` counts it.
    """
    from tokenizers import Tokenizer

    from orchestrator.chat_template.jinja import jinja_template, render_messages
    from orchestrator.chat_template.registry import definition
    from orchestrator.chat_template.turns import special_tokens

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    special = special_tokens(model)
    jinja = jinja_template(definition(template), special, thinking)

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    def count(row: Conversation) -> int:
        system = [{"role": "system", "content": row.system}] if row.system else []
        turns = [{"role": _SPOKEN.get(turn.role, turn.role), "content": turn.content} for turn in row.messages]
        answers = [[{"role": "assistant", "content": text}] for text in (row.chosen, row.rejected) if text]
        asked = [*system, *turns]
        texts = (render_messages(jinja, asked + one, special, add_generation_prompt=False) for one in answers or [[]])
        return max(map(tokens, texts)) + tokens(row.tools)

    return count


def most_tokens(row: Conversation) -> int:
    """An upper bound of a row's tokens that needs no tokenizer."""
    texts = [row.system, row.tools, row.chosen, row.rejected, *(message.content for message in row.messages)]
    return sum(len(text.encode("utf-8", "surrogatepass")) + _TEMPLATE_TOKENS for text in texts)
