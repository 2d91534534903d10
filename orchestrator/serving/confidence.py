"""How sure a served classifier is, with the labels and the temperature that its run measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run

Sure = dict[str, Any]
"""`label`, the likeliest; `probability`, its share among the known labels, 0 to 1; `probabilities`, that of each."""


def measured(run: Run, kind: str) -> dict[str, Any] | None:
    """Each label's tokens and the temperature, as a run measured them for a GGUF; None where it did not, or was made by
    a version that did not keep the tokens."""
    found = summaries(run.folder).get("confidence", {}).get(f"gguf-{kind}", {})
    if "choices" not in found:
        return None
    return {"choices": found["choices"], "temperature": found["temperature"]}


@dataclass(frozen=True)
class Confidence:
    """What llama-cpp-python has loaded, asked for each label's probability instead of for an answer."""

    llama: Any
    choices: Mapping[str, Sequence[int]]
    temperature: float

    def __call__(self, prompt: Sequence[int]) -> Sure:
        """For the tokens of a conversation. Raises StageError when llama.cpp fails."""
        import numpy as np

        from orchestrator.evaluation.confidence import probabilities
        from orchestrator.models.choices import log_likelihoods
        from orchestrator.models.gguf import GgufModel

        found = log_likelihoods(GgufModel.of(self.llama), [list(prompt)], list(self.choices.values()))
        (shares,) = probabilities(np.array(list(found)), self.temperature)
        return as_json(list(self.choices), shares.tolist())


def as_json(labels: Sequence[str], shares: Sequence[float]) -> Sure:
    """The labels' probabilities, the likeliest first."""
    ranked = sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])
    table = {label: round(share, 4) for label, share in ranked}
    return {"label": ranked[0][0], "probability": table[ranked[0][0]], "probabilities": table}
