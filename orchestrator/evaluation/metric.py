"""The table of metrics: what each is called, which way is better, and where it is shown.

Tables, pages, rankings, model cards, sweeps and the gate read it. A new metric that is a mean over rows is one entry,
with its `sample`. The others are computed together in classification.py, overlap.py and preference.py: one over labels
also has its figure in classification.py, and is named in `column` or `beside` of accuracy to be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.evaluation.rows import Row

ANSWERS = ("classification", "generation", "tools")
"""Kinds of tasks whose rows have answers."""
TOOLS = ("tools",)
"""The kind whose answers are calls of tools, or texts where no tool is called for."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about an artifact's held-out rows; percentages unless `title` says otherwise."""

    name: str
    title: str
    """As the head of a column."""
    higher_is_better: bool = True
    tasks: tuple[str, ...] = ANSWERS
    """Tasks that it is measured for; none for what only some kinds of training have."""
    sample: Callable[[str, str], float] | None = None
    """Label and answer, both stripped → the share from 0 to 1 of one row; the metric is its mean, in percent."""
    of_row: Callable[[Row], float] | None = None
    """The same of a whole row, where label and answer do not suffice."""
    sentence: str = ""
    """How a run tells its value and interval where the metric is its primary one; empty for the others."""
    column: tuple[str, ...] = ()
    """The metrics whose columns the console's table shows where this is the primary one."""
    beside: tuple[str, ...] = ()
    """The metrics that stand beside it on a run's page where it is the primary one."""
    digits: int = 1
    on_card: bool = False
    """Whether a model card states it."""


AGREEMENT = "agreement_with_tuned"
DIVERGENCE = "divergence"
READING_DIVERGENCE = "reading_divergence"
"""The same of all that was read: answers and what prompts have for themselves."""
PROBABILITY_CHANGE = "probability_change"
CONFIDENCE = ("scaled_ece", "answerable")
GENERAL_CHANGE, GENERAL_DIVERGENCE = "general_change", "general_divergence"
"""Of the answers to general prompts, against the base model; nats a token."""
FROM_LOGITS = (DIVERGENCE, READING_DIVERGENCE, PROBABILITY_CHANGE)
"""What is measured of an artifact's probabilities, not of its answers."""

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy", "accuracy", tasks=("classification",), on_card=True,
            sentence="The tuned model answers {} % {} of",
            column=("macro_f1", "rouge1"),
            beside=("macro_f1", "invalid_label_rate", "empty_rate", "rouge1", AGREEMENT, *FROM_LOGITS, *CONFIDENCE),
        ),
        Metric(
            "preference_accuracy", "preference", tasks=(), on_card=True,
            sentence="The tuned model prefers the better answer in {} % {} of",
            column=("reward_margin", "rougeL"),
            beside=("reward_accuracy", "reward_margin", "rougeL", AGREEMENT, *FROM_LOGITS),
        ),
        Metric(
            "perplexity", "perplexity", tasks=(), higher_is_better=False, on_card=True,
            sentence="The tuned model reaches perplexity {} {} on",
        ),
        Metric(
            "call_accuracy", "calls", tasks=TOOLS, on_card=True,
            sentence="The tuned model makes the right calls in {} % {} of those that call for one among",
            column=("missed_calls", "spurious_calls"),
            beside=(
                "name_accuracy", "argument_f1", "spurious_calls", "missed_calls", "rougeL", "empty_rate", AGREEMENT,
            ),
        ),
        Metric(
            "rougeL", "ROUGE-L", on_card=True,
            sentence="The tuned model reaches ROUGE-L {} {} on",
            column=("bleu", "rouge1"),
            beside=("rouge1", "rouge2", "bleu", "empty_rate", AGREEMENT, *FROM_LOGITS),
        ),
        Metric("balanced_accuracy", "balanced accuracy", tasks=("classification",), on_card=True),
        Metric("macro_f1", "macro F1", tasks=("classification",), on_card=True),
        Metric("invalid_label_rate", "no known label", tasks=("classification",), higher_is_better=False),
        Metric("name_accuracy", "tool names", tasks=TOOLS, on_card=True),
        Metric("argument_f1", "arguments F1", tasks=TOOLS, on_card=True),
        Metric("spurious_calls", "spurious", tasks=TOOLS, higher_is_better=False, on_card=True),
        Metric("missed_calls", "missed", tasks=TOOLS, higher_is_better=False, on_card=True),
        Metric("rouge1", "ROUGE-1", on_card=True),
        Metric("rouge2", "ROUGE-2"),
        Metric("bleu", "BLEU", on_card=True),
        Metric("exact_match", "exact match", on_card=True),
        Metric("empty_rate", "empty", higher_is_better=False),
        Metric("ece", "ECE", tasks=(), higher_is_better=False),
        Metric("scaled_ece", "ECE, scaled", tasks=(), higher_is_better=False),
        Metric("answerable", "at 95 %", tasks=()),
        Metric("reward_accuracy", "reward accuracy", tasks=(), on_card=True),
        Metric("reward_margin", "margin", tasks=(), digits=2, on_card=True),
        Metric(AGREEMENT, "agrees"),
        Metric(DIVERGENCE, "KL", tasks=(), higher_is_better=False, digits=4),
        Metric(READING_DIVERGENCE, "KL, read", tasks=(), higher_is_better=False, digits=4),
        Metric(PROBABILITY_CHANGE, "probability", tasks=(), digits=2),
        Metric(GENERAL_CHANGE, "general", tasks=(), digits=2),
        Metric(GENERAL_DIVERGENCE, "general KL", tasks=(), higher_is_better=False, digits=2),
    )
}  # fmt: skip
"""Name → metric. What runs are about comes first, in the order in which one is looked for."""


def primary(measured: Iterable[str]) -> str:
    """The metric that verdicts, rankings and the gate are about, of those that were measured; ROUGE-L without any."""
    names = set(measured)
    return next((metric.name for metric in METRICS.values() if metric.sentence and metric.name in names), "rougeL")


def primary_of(task: str) -> str:
    """The metric that a task's answers are judged by."""
    return primary(metric.name for metric in METRICS.values() if task in metric.tasks)


def ranked() -> tuple[str, ...]:
    """The metrics that can be a run's primary one."""
    return tuple(metric.name for metric in METRICS.values() if metric.sentence)


def scored_by(metric: Metric) -> Callable[[Row], float] | None:
    """What scores one row; None for what is no mean over rows."""
    return metric.of_row or _of_texts(metric.sample)


def samples(task: str) -> dict[str, Callable[[Row], float]]:
    """Name → what scores one row, of the metrics of a task that are means over rows."""
    return {
        metric.name: scored for metric in METRICS.values() if task in metric.tasks and (scored := scored_by(metric))
    }


def _of_texts(sample: Callable[[str, str], float] | None) -> Callable[[Row], float] | None:
    return (lambda row: sample(row.truth, row.answer)) if sample else None


def added(measured: Iterable[str]) -> list[str]:
    """The metrics with a `sample` of their own, which tables and pages show behind the usual ones."""
    names = set(measured)
    return [metric.name for metric in METRICS.values() if metric.sample and metric.name in names]


def is_lower_better(name: str) -> bool:
    """Whether less of a metric is better, by the table; of names beside it, of `loss`, `eval_loss` and `seconds`."""
    if name in METRICS:
        return not METRICS[name].higher_is_better
    return name in ("loss", "eval_loss", "seconds")
