"""The kinds of training that LLaMA-Factory has (its argument `stage`), and what follows from each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["sft", "pt", "dpo", "rm", "kto"]


@dataclass(frozen=True, slots=True)
class TrainingKind:
    """One kind of training: what its rows hold, what it learns from them, how it is measured, and what is exported."""

    title: str
    """TRAINING_STAGES of llamafactory/extras/constants.py."""
    reads: bool = False
    """Whether rows are texts that are only read, without a question."""
    pairs: bool = False
    """Whether a row ends with two answers, one better than the other."""
    tags: bool = False
    """Whether a row says that its answer is desirable, or that it is not."""
    prefers: bool = False
    """Whether it learns to prefer answers, mostly against a reference model; trl has the trainer."""
    value_head: bool = False
    """Whether what is trained gives an answer a number, through a head of its own."""
    answers: bool = True
    """Whether the tuned model is asked the held-out rows, and its GGUFs after it."""
    measured_by: str = ""
    """The step that measures what answers cannot show; empty for none."""
    metrics: tuple[str, ...] = ()
    """What that step measures. ORPO and SimPO have no reference model, and so no `reward_accuracy`."""
    limit: str = ""
    """Why nothing is exported; empty where something is."""

    @property
    def exports(self) -> bool:
        """Whether GGUFs are made of it."""
        return not self.limit

    @property
    def sequences(self) -> int:
        """How many token sequences a row is trained as; kto adds one that pairs its prompt with another answer."""
        return 2 if self.pairs or self.tags else 1


PREFERENCE = ("preference_accuracy", "reward_accuracy", "reward_margin")
TRAINING_KINDS: dict[str, TrainingKind] = {
    "sft": TrainingKind("Supervised Fine-Tuning"),
    "pt": TrainingKind(
        "Pre-Training", reads=True, answers=False, measured_by="perplexity", metrics=("perplexity",)
    ),
    "dpo": TrainingKind("DPO", pairs=True, prefers=True, measured_by="preference", metrics=PREFERENCE),
    "rm": TrainingKind(
        "Reward Modeling", pairs=True, value_head=True, answers=False,
        measured_by="preference", metrics=("preference_accuracy", "reward_margin"),
        limit="a GGUF cannot hold the value head of a reward model: nothing is exported",
    ),
    "kto": TrainingKind("KTO", tags=True, prefers=True, measured_by="preference", metrics=PREFERENCE),
}  # fmt: skip
"""What `train.stage` may say → what follows from it; ppo cannot run with the trl that LLaMA-Factory requires."""
