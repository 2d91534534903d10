"""Did training teach anything, by the summary of a run: the gain over what needs no training, and what to try next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

BETTER_THAN = "better_than"
"""What a failure of this kind is called."""
BASELINES = ("base", "majority")
"""What a tuned model is held against: the untouched model, and always answering the most frequent training label."""
UNTRAINED = {
    "majority": "always answering the most frequent label",
    "base": "the base model",
    "base-prompted": "the base model that is told the labels",
}
"""What needs no training, as tables have it and as a sentence calls it, in the order of a table."""
_FEW = 5.0
"""Percent of answers cut off that call for action."""


def best_first(comparisons: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Comparisons as summaries have them, those of the tuned model with what needs no training from the best one."""
    return sorted(comparisons, key=lambda one: -one["value_b"] if one["b"] in UNTRAINED else float("inf"))


def gain(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The tuned model against the best of several that need no training; None where it was held against one at most."""
    found = [one for one in summary.get("comparisons", ()) if one["b"] in UNTRAINED]
    return found[0] if len({one["b"] for one in found}) > 1 else None


def gain_sentence(found: Mapping[str, Any]) -> str:
    """What training gained over the best that needs none, in words."""
    difference = found["difference"]
    interval = f"95 % {difference['low']:+.1f}…{difference['high']:+.1f}"
    return (
        f"gain over the best baseline, {UNTRAINED[found['b']]} ({found['value_b']:.1f}): "
        f"{difference['value']:+.1f} points ({interval})"
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """The facts of a training and its answers that advice goes by."""

    losses: Sequence[float] = ()
    """On training rows, in order."""
    held_out: Sequence[float] = ()
    """On held-out rows, in order."""
    answers: int = 0
    unseen_labels: Sequence[str] = ()
    cut_off: int = 0
    one_answer: bool = False
    """Whether all answers are the same though the rows differ."""
    learnt: bool = True
    """Whether nothing says that the tuned model is no better than what needs no training."""


def seen(summary: Mapping[str, Any], losses: Sequence[float] = (), held_out: Sequence[float] = ()) -> Seen:
    """The facts in a run's summary, beside the losses of its log."""
    facts = summary.get("learnt") or {}
    failures = {f["what"] for f in summary.get("failures", ()) if f["artifact"] == "tuned"}
    against = next((c for c in summary.get("comparisons", ()) if c["a"] == "tuned"), None)
    return Seen(
        losses,
        held_out,
        summary.get("metrics", {}).get("tuned", {}).get("n", 0),
        facts.get("unseen_labels", ()),
        facts.get("cut_off", 0),
        "answers" in failures,
        not failures & {"answers", BETTER_THAN} and (against is None or against["verdict"] == "better"),
    )


def next_steps(it: Seen) -> Iterator[str]:
    """What to try next, the most promising first; nothing where nothing speaks for a change."""
    if it.unseen_labels:
        names = ", ".join(map(repr, it.unseen_labels[:5]))
        yield f"No training row has {names}, so nothing could learn it: add such rows to data.train."
    if it.answers and 100 * it.cut_off > _FEW * it.answers:
        yield f"{it.cut_off} of {it.answers} answers end before they are complete: raise evaluate.max_new_tokens."
    yield from _about_losses(it)
    if not it.learnt:
        yield "No gain over the best baseline is visible: read the mistakes, then sweep train.learning_rate."


def _about_losses(it: Seen) -> Iterator[str]:
    losses, held_out = it.losses, it.held_out
    if _rose(losses) or (it.one_answer and len(losses) >= 4):
        yield (
            f"The loss went from {losses[0]:.2f} to {losses[-1]:.2f}"
            f"{' and every answer is the same' if it.one_answer else ''}: "
            "the rate is too high, divide train.learning_rate by ten."
        )
    elif len(held_out) > 2 and held_out[-1] > 1.05 * min(held_out):
        yield "The loss on held-out rows rose again: fewer epochs (train.num_train_epochs) or a lower learning rate."
    elif len(losses) >= 8 and 0.1 * losses[0] < fmean(losses[-2:]) < 0.8 * fmean(losses[-6:-2]):
        yield "The loss was still falling at the end: more epochs (train.num_train_epochs)."
    elif not it.learnt and len(losses) >= 2 and losses[-1] > 0.9 * losses[0]:
        yield (
            f"The loss hardly moved ({losses[0]:.2f} to {losses[-1]:.2f}): "
            "a train.learning_rate ten times as high, or more epochs (train.num_train_epochs)."
        )
    elif not it.learnt and len(losses) >= 2 and losses[-1] < 0.05 * losses[0]:
        yield "The training rows are known by heart and the held-out ones are not: more rows, and fewer epochs."


def _rose(losses: Sequence[float]) -> bool:
    """Whether a training ended well above where it had begun, or had been."""
    if len(losses) < 4:
        return False
    end = fmean(losses[-2:])
    return end > 1.1 * losses[0] or (end > 0.8 * losses[0] and end > 1.5 * min(losses))
