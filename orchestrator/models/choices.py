"""How likely a GGUF finds each of some answers, from its own logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from orchestrator.models.gguf import GgufModel
from orchestrator.models.reading import Reading, log_probabilities


def log_likelihoods(
    model: GgufModel, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[int]]
) -> Iterator[list[float]]:
    """For each prompt the log-probability in nats of each choice, as the product over its tokens.

    Raises StageError when llama.cpp fails.
    """
    groups = [choices] if model.branches else [[choice] for choice in choices]
    readings = [Reading(prompt, group) for prompt in prompts for group in groups]
    every = [range(len(reading.answers)) for reading in readings]
    followers = [reading.followers(answers) for reading, answers in zip(readings, every, strict=True)]

    def look(logits: Any, row: int, place: int) -> Mapping[int, float]:
        return log_probabilities(logits, followers[row][place])

    read = zip(readings, every, model.read(readings, look) if readings else (), strict=True)
    for _ in prompts:
        of_prompt = islice(read, len(groups))
        yield [value for reading, answers, logs in of_prompt for value in reading.likelihoods(answers, logs)]
