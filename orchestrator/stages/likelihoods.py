"""What a model gives the held-out rows: log-likelihoods, or a reward model's scores.

Rows are tokenised and models loaded by LLaMA-Factory itself, as in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.intervals import Array
from orchestrator.lib.training_kinds import TRAINING_KINDS, TrainingKind
from orchestrator.models.reader import padded


@dataclass(frozen=True)
class Scores:
    """What a model gives each row; both arrays are rows × sequences: (chosen, rejected) or one."""

    values: Array
    """Log-likelihoods of the answer, in nats, or rewards."""
    tokens: Array
    """Tokens that were scored."""
    read: tuple[Mapping[str, Any], ...] = ()
    """Of each text of a pretraining: token ids, and the places of those that are not scored."""


def measure(arguments: Mapping[str, Any], kind: str) -> tuple[Scores, Array]:
    """Load a model, score the held-out rows; also whether each is desirable (empty unless kto)."""
    import torch
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    of_model, of_data, of_training, of_finetuning, _ = get_train_args(dict(arguments))
    module = load_tokenizer(of_model)
    template = get_template_and_fix_tokenizer(module["tokenizer"], of_data)
    of = TRAINING_KINDS[kind]
    stage = "rm" if of.pairs else kind  # as llamafactory/train/dpo/workflow.py does
    rows = get_dataset(template, of_model, of_data, of_training, stage=stage, **module)["eval_dataset"]
    model = load_model(module["tokenizer"], of_model, of_finetuning, False, add_valuehead=of.value_head)
    score = _rewards if of.value_head else _likelihoods
    width = 2 if of.pairs else 1
    found: list[tuple[float, int]] = []
    sequences = [sequence for row in rows for sequence in _sequences(row, of, module["tokenizer"].pad_token_id)]
    with torch.inference_mode():
        for start in range(0, len(sequences), size := of_training.per_device_eval_batch_size):
            found += score(model, sequences[start : start + size])
            print(f"{len(found)}/{len(sequences)}", flush=True)
    table = np.array(found, dtype=np.float64).reshape(-1, width, 2)
    read = tuple(map(_read, sequences)) if of.reads else ()
    return Scores(table[:, :, 0], table[:, :, 1], read), np.array(rows["kto_tags"] if of.tags else [], dtype=bool)


def _read(sequence: tuple[list[int], list[int]]) -> dict[str, list[int]]:
    ids, labels = sequence
    return {"ids": ids, "unscored": [at for at, label in enumerate(labels) if label == -100]}


def _sequences(row: Mapping[str, Any], kind: TrainingKind, pad: int) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of a row's texts; a label of -100 is not scored.

    In a pretraining nothing learns the padding token, which ends every text of a tokenizer that pads with EOS.
    """
    if kind.reads:
        return [(row["input_ids"], [-100 if token == pad else token for token in row["input_ids"]])]
    prefixes = ("chosen_", "rejected_") if kind.pairs else ("",)
    return [(row[f"{prefix}input_ids"], row[f"{prefix}labels"]) for prefix in prefixes]


def _likelihoods(model: Any, batch: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, int]]:
    from llamafactory.train.trainer_utils import get_batch_logps

    ids, labels, mask = padded(model, batch)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    values, tokens = get_batch_logps(logits, labels)
    return list(zip(values.tolist(), tokens.tolist(), strict=True))


def _rewards(model: Any, batch: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, int]]:
    """The value head's output at the last token, as llamafactory/train/rm/trainer.py takes it."""
    ids, _, mask = padded(model, batch)
    model.v_head.to(ids.device)
    _, _, values = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    lengths = mask.sum(dim=-1, keepdim=True)
    rewards = values.gather(dim=-1, index=lengths - 1).squeeze(-1).float()
    return list(zip(rewards.tolist(), lengths.squeeze(-1).tolist(), strict=True))
