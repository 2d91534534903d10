"""Did it forget: the base and the tuned model on general prompts that have nothing to do with the job. Pure.

general.jsonl holds 60 prompts with a short reference answer each, half English and half Chinese: sums, facts,
instructions, chat. They were written for this project, and no other collection was used. Both models are given the
reference answers token by token. The log-likelihood that these lose through training is what is called forgetting
(Kalajdzievski, Scaling Laws for Forgetting When Fine-Tuning Large Language Models, 2024, measures it so; Biderman et
al., LoRA Learns Less and Forgets Less, 2024, by tasks beside the trained one). The end of an answer is left out: when
to stop is style, which any job may teach.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orchestrator.evaluation.divergence import Expectations, mean
from orchestrator.evaluation.intervals import Interval
from orchestrator.evaluation.metric import GENERAL_CHANGE, GENERAL_DIVERGENCE

FILE = Path(__file__).with_suffix(".jsonl")
MARGIN = math.log(1.1)
"""Nats a token that the reference answers may lose: their perplexity may rise by a tenth, which is also what the gate
allows the perplexity of a pretraining by default (`export.gate.max_perplexity_rise`)."""
WORST = 3
"""Prompts that are named."""

Verdict = Literal["kept", "damaged", "cannot say"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question that any assistant is asked, and how one may answer."""

    id: str
    language: str
    about: str
    """sum, fact, instruction or chat."""
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Read:
    """What the tuned model gives one token of a reference answer."""

    divergence: float
    """Of its expectations from the base model's, in nats."""
    log: float
    """The log-probability of the token, in nats."""
    likeliest: bool
    """Whether it expects this token most."""


def prompts() -> list[Prompt]:
    """The prompts, always the same."""
    return [Prompt(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]


def rows(
    asked: Sequence[Prompt],
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    base: Expectations,
    tuned: Sequence[Sequence[Read]],
) -> Iterator[Json]:
    """Each prompt's figures: the mean divergence of its answer's tokens, their mean log-probability under both models
    and its change, in nats a token, and whether each model would give the answer by itself, word for word."""
    start = 0
    for prompt, (_, answer), read in zip(asked, pairs, tuned, strict=True):
        places = slice(start, start := start + len(answer))
        before, after = float(base.chosen[places].mean()), float(np.mean([one.log for one in read]))
        top = base.tokens[places][np.arange(len(answer)), base.logs[places].argmax(axis=1)]
        yield {
            "id": prompt.id,
            "language": prompt.language,
            "about": prompt.about,
            "prompt": prompt.prompt,
            "answer": prompt.answer,
            "tokens": len(answer),
            "divergence": float(np.mean([one.divergence for one in read])),
            "base": before,
            "tuned": after,
            "change": after - before,
            "base_says_it": bool((top == np.array(answer)).all()),
            "tuned_says_it": all(one.likeliest for one in read),
        }


def verdict(change: Interval, margin: float = MARGIN) -> Verdict:
    """Kept where the interval rules a loss beyond the margin out, damaged where it rules a smaller one out.

    What non-inferiority asks (Piaggio et al., CONSORT extension for noninferiority trials, JAMA 308, 2012).
    """
    if change.low > -margin:
        return "kept"
    return "damaged" if change.high < -margin else "cannot say"


def summarise(found: Sequence[Json]) -> tuple[dict[str, Interval], Json]:
    """The figures of the tuned model over the prompts, and what is said of them; neither where a row has no number."""
    if not all(math.isfinite(row["change"]) and math.isfinite(row["divergence"]) for row in found):
        return {}, {"verdict": "cannot say", "sentence": "general ability: cannot say, for a figure is no number"}
    change = mean([row["change"] for row in found])
    figures = {GENERAL_CHANGE: change, GENERAL_DIVERGENCE: mean([row["divergence"] for row in found])}
    told: Json = {
        "verdict": verdict(change),
        "prompts": len(found),
        "margin": MARGIN,
        "says_it": {name: sum(row[f"{name}_says_it"] for row in found) for name in ("base", "tuned")},
        "about": {about: _part(found, about) for about in dict.fromkeys(row["about"] for row in found)},
        "languages": {name: _part(found, name) for name in dict.fromkeys(row["language"] for row in found)},
        "worst": sorted(found, key=lambda row: row["change"])[:WORST],
    }
    return figures, told | {"sentence": sentence(figures, told)}


def sentence(figures: Mapping[str, Interval], told: Json) -> str:
    """The verdict and what it rests on."""
    change, nats = figures[GENERAL_CHANGE], figures[GENERAL_DIVERGENCE]
    says, n = told["says_it"], told["prompts"]
    return (
        f"general ability: {told['verdict']}; the answers to {n} general prompts changed by {change.value:+.2f} nats "
        f"a token ({change.low:+.2f} to {change.high:+.2f}; a loss up to {told['margin']:.3f} counts as kept), "
        f"divergence {nats.value:.2f}; word for word the base model gives {says['base']} of them, tuned {says['tuned']}"
    )


def _part(found: Sequence[Json], name: str) -> Json:
    own = [row for row in found if name in (row["about"], row["language"])]
    return {
        "prompts": len(own),
        "change": mean([row["change"] for row in own]).to_json(),
        "base_says_it": sum(row["base_says_it"] for row in own),
        "tuned_says_it": sum(row["tuned_says_it"] for row in own),
    }
