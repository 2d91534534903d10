"""LLaMA-Factory's trainers, made to compute less for the same result: each function makes a subclass of one.

What a loss needs of the logits are those at the tokens that it is computed on. The head of a language model works on
each token by itself, so it is given only those.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The label of a token that no loss is computed on, in transformers and LLaMA-Factory."""
Trainer = Any
"""A trainer's class; LLaMA-Factory's are not typed."""


def kept(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions of each row that predict a token with a loss, and the labels that belong to logits at them.

    `labels` is (rows, tokens). Both results are (rows, most tokens with a loss in a row + 1): whoever computes a loss
    from them shifts labels against logits by one, as from whole rows. Shorter rows are filled with positions that have
    no loss, and so is the last column, which the shift cuts off.
    """
    import torch

    following = labels[:, 1:]
    counts = following != IGNORED
    most = int(counts.sum(dim=1).max())
    positions = (~counts).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    filler = labels.new_full((len(labels), 1), IGNORED)
    return torch.cat([positions, torch.zeros_like(filler)], 1), torch.cat([filler, following.gather(1, positions)], 1)


@contextlib.contextmanager
def logits_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Meanwhile, a model's head sees only these positions of each row: (rows, positions)."""

    def narrow(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = args[0]
        return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.size(-1))), *args[1:]

    hook = model.get_output_embeddings().register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        hook.remove()


def can_narrow(model: Any) -> bool:
    """Whether its forward knows that not all logits are wanted, so that it treats each by itself."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(type(base).forward).parameters


def answer_loss(trainer: Trainer) -> Trainer:
    """For sft and pt, whose loss the model computes."""

    class AnswerLoss(trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if "labels" not in inputs:
                return super().compute_loss(model, inputs, *args, **kwargs)
            positions, labels = kept(inputs["labels"])
            with logits_at(model, positions):
                return super().compute_loss(model, {**inputs, "labels": labels}, *args, **kwargs)

    return AnswerLoss


def answer_pairs(trainer: Trainer) -> Trainer:
    """For dpo, whose trainer computes the loss from chosen and rejected rows in one batch."""

    class AnswerPairs(trainer):  # type: ignore[misc]
        def concatenated_forward(self, model: Any, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            positions, labels = kept(batch["labels"])
            with logits_at(model, positions):
                return super().concatenated_forward(model, {**batch, "labels": labels}, *args, **kwargs)

    return AnswerPairs


def answer_tags(trainer: Trainer) -> Trainer:
    """For kto, whose batch holds a second set of rows for the divergence."""

    class AnswerTags(trainer):  # type: ignore[misc]
        def forward(self, model: Any, batch: dict[str, Any], prefix: str = "") -> Any:
            positions, labels = kept(batch[f"{prefix}labels"])
            with logits_at(model, positions):
                return super().forward(model, {**batch, f"{prefix}labels": labels}, prefix)

    return AnswerTags


def by_length(trainer: Trainer) -> Trainer:
    """Rows of like lengths are computed together, so that less is padding.

    Answers come back in the rows' order. A step of training has the same rows as before, in other micro-batches.
    """

    class ByLength(trainer):  # type: ignore[misc]
        def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
            import numpy as np

            lengths = [len(ids) for ids in test_dataset["input_ids"]]
            order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
            found = super().predict(test_dataset.select(order), *args, **kwargs)
            back = np.argsort(order)
            return found._replace(predictions=found.predictions[back], label_ids=found.label_ids[back])

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
            batches, items = super().get_batch_samples(*args, **kwargs)
            return dealt(batches, self.processing_class.pad_token_id), items

    return ByLength


def shared_prefix(trainer: Trainer) -> Trainer:
    """What all prompts begin with is computed once, and each prompt's answer goes on from there."""
    from orchestrator.models.decoder import common_prefix
    from orchestrator.models.reader import Prefix

    class SharedPrefix(trainer):  # type: ignore[misc]
        prefix = Prefix()

        def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
            self.prefix = Prefix.of(self.model, common_prefix(test_dataset["input_ids"]))
            print(f"{self.prefix.tokens} tokens that all prompts begin with are computed once", flush=True)
            return super().predict(test_dataset, *args, **kwargs)

        def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if self.prefix.tokens and inputs.keys() <= {"input_ids", "attention_mask", "labels"}:
                past = self.prefix.of_rows(len(inputs["input_ids"]))
                inputs, kwargs = prefix_first(inputs, self.prefix.tokens), {**self._gen_kwargs, "past_key_values": past}
            return super().prediction_step(model, inputs, *args, **kwargs)

    return SharedPrefix


def prefix_first(inputs: Mapping[str, torch.Tensor], tokens: int) -> dict[str, torch.Tensor]:
    """A batch whose rows, (rows, tokens) filled at the left, have what they are filled with behind their prefix."""
    import torch

    mask = inputs["attention_mask"]
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    empty = mask.shape[1] - mask.sum(dim=1, keepdim=True)
    order = torch.where(places < tokens, places + empty, torch.where(places < tokens + empty, places - tokens, places))
    return {**inputs, **{name: inputs[name].gather(1, order) for name in ("input_ids", "attention_mask")}}


def dealt(batches: list[dict[str, torch.Tensor]], padding: int) -> list[dict[str, torch.Tensor]]:
    """The rows of a step's micro-batches, the longest first, in as many micro-batches of the same sizes.

    Every tensor is (rows, tokens), filled at the right; where one is not, they stay as they are.
    """
    from torch.nn.utils.rnn import pad_sequence

    if len(batches) < 2 or not all(map(_filled_at_the_right, batches)):
        return batches
    rows = [
        _cut({name: values[at] for name, values in one.items()}) for one in batches for at in range(len(one["labels"]))
    ]
    rows.sort(key=lambda row: len(row["labels"]), reverse=True)
    fill = {"labels": IGNORED, "attention_mask": 0, "input_ids": padding}
    made, start = [], 0
    for size in (len(one["labels"]) for one in batches):
        part = rows[start : (start := start + size)]
        made.append({name: pad_sequence([row[name] for row in part], True, fill[name]) for name in part[0]})
    return made


def _filled_at_the_right(batch: dict[str, torch.Tensor]) -> bool:
    """Whether a micro-batch is nothing but rows of tokens, each from its first on."""
    mask = batch.get("attention_mask")
    known = batch.keys() == {"input_ids", "attention_mask", "labels"}
    return known and mask is not None and mask.dim() == 2 and bool((mask.diff(dim=1) <= 0).all())


def _cut(row: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A row without what it was filled with."""
    length = int(row["attention_mask"].sum())
    return {name: values[:length] for name, values in row.items()}


ANSWER_LOGITS: dict[str, tuple[str, Callable[[Trainer], Trainer]]] = {
    "sft": ("CustomSeq2SeqTrainer", answer_loss),
    "pt": ("CustomTrainer", answer_loss),
    "dpo": ("CustomDPOTrainer", answer_pairs),
    "kto": ("CustomKTOTrainer", answer_tags),
}
"""Stage of training → the class that llamafactory/train/STAGE/workflow.py uses, and what is made of it."""
