"""Held-out rows under base and tuned model, without asking for answers: `preference CONFIG.json`.

Rows are tokenised and models loaded by LLaMA-Factory itself, as in training.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.evaluation import preference
from orchestrator.evaluation.intervals import Array, Interval
from orchestrator.evaluation.rows import write_records
from orchestrator.lib.files import read_json, write_json
from orchestrator.stages import entry

AVERAGED = ("ipo", "orpo", "simpo")
"""DPO losses by the mean log-likelihood of a token; the others take the sum."""
PAIRED = ("dpo", "rm")


@dataclass(frozen=True)
class Config:
    """configs/preference.json."""

    kind: str
    models: Mapping[str, Mapping[str, Any]]
    """Model → the arguments that load it."""
    arguments: Mapping[str, Any]
    """Arguments of LLaMA-Factory that they share."""
    reported: Sequence[str]
    reference: str | None
    """The model that rewards are measured against."""
    loss: str
    beta: float
    summary: str
    rows: str


@dataclass(frozen=True)
class Scores:
    """What a model gives each row; both arrays are rows × sequences: (chosen, rejected) or one."""

    values: Array
    """Log-likelihoods of the answer, in nats, or rewards."""
    tokens: Array
    """Tokens that were scored."""
    read: tuple[Mapping[str, Any], ...] = ()
    """Of each text of a pretraining: token ids, and the places of those that are not scored."""


def main(path: Path) -> None:
    """Write what every model gives every row, and the figures."""
    config = Config(**read_json(path))
    scores, desirable = {}, np.zeros(0, dtype=bool)
    for name, loads in config.models.items():
        scores[name], desirable = measure({**config.arguments, **loads}, config.kind)
        gc.collect()
    figures = {name: measured(name, scores, desirable, config) for name in config.reported}
    write_records(Path(config.rows), records(scores, desirable, config.kind))
    n = len(scores["tuned"].values)
    metrics = {
        name: {"n": n, **{key: interval.to_json() for key, interval in found.items()}}
        for name, found in figures.items()
    }
    write_json(Path(config.summary), {"metrics": metrics})


def measured(name: str, scores: Mapping[str, Scores], desirable: Array, config: Config) -> dict[str, Interval]:
    """A model's figures. Rewards are relative to the reference, which has none of its own."""
    own = scores[name]
    if config.kind == "pt":
        return preference.perplexity(own.values[:, 0], own.tokens[:, 0])
    values = own.values
    if config.kind == "kto" or config.loss in AVERAGED:  # kto's answers belong to different prompts
        values = own.values / own.tokens
    figures = _accuracy(values, desirable, config.kind, preference.ACCURACY)
    if config.kind == "rm":
        return figures | preference.margin(own.values)
    if config.reference is None:
        return figures | preference.margin(config.beta * values)
    if name != "tuned":
        return figures
    rewards = config.beta * _implicit(own, scores[config.reference], config.loss)
    figures |= _accuracy(rewards, desirable, config.kind, preference.REWARD_ACCURACY)
    if config.kind == "kto":
        return figures | preference.ranked_margin(rewards[:, 0], desirable)
    return figures | preference.margin(rewards)


def _accuracy(values: Array, desirable: Array, kind: str, name: str) -> dict[str, Interval]:
    if kind == "kto":
        return preference.ranked(values[:, 0], desirable, name)
    return preference.preferred(values, name)


def _implicit(own: Scores, reference: Scores, loss: str) -> Array:
    gained = own.values - reference.values
    return gained / own.tokens if loss in AVERAGED else gained


def records(scores: Mapping[str, Scores], desirable: Array, kind: str) -> list[dict[str, Any]]:
    """A row each, with what every model gave it; log-likelihoods in nats."""
    names = ("chosen", "rejected") if kind in PAIRED else ("text",) if kind == "pt" else ("answer",)
    rows = []
    for at in range(len(scores["tuned"].values)):
        given = {model: dict(zip(names, of.values[at].tolist(), strict=True)) for model, of in scores.items()}
        thumb = {"desirable": bool(desirable[at])} if kind == "kto" else {}
        read = scores["tuned"].read[at] if kind == "pt" else {}
        rows.append({"id": str(at + 1), **thumb, **given, **read})
    return rows


def measure(arguments: Mapping[str, Any], kind: str) -> tuple[Scores, Array]:
    """Load a model, score the held-out rows; also whether each is desirable (empty unless kto)."""
    import torch
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    of_model, of_data, of_training, of_finetuning, _ = get_train_args(dict(arguments))
    module = load_tokenizer(of_model)
    template = get_template_and_fix_tokenizer(module["tokenizer"], of_data)
    stage = "rm" if kind == "dpo" else kind  # as llamafactory/train/dpo/workflow.py does
    rows = get_dataset(template, of_model, of_data, of_training, stage=stage, **module)["eval_dataset"]
    model = load_model(module["tokenizer"], of_model, of_finetuning, False, add_valuehead=kind == "rm")
    score = _rewards if kind == "rm" else _likelihoods
    width = 2 if kind in PAIRED else 1
    found: list[tuple[float, int]] = []
    sequences = [sequence for row in rows for sequence in _sequences(row, kind, module["tokenizer"].pad_token_id)]
    with torch.inference_mode():
        for start in range(0, len(sequences), size := of_training.per_device_eval_batch_size):
            found += score(model, sequences[start : start + size])
            print(f"{len(found)}/{len(sequences)}", flush=True)
    table = np.array(found, dtype=np.float64).reshape(-1, width, 2)
    read = tuple(map(_read, sequences)) if kind == "pt" else ()
    return Scores(table[:, :, 0], table[:, :, 1], read), np.array(rows["kto_tags"] if kind == "kto" else [], dtype=bool)


def _read(sequence: tuple[list[int], list[int]]) -> dict[str, list[int]]:
    ids, labels = sequence
    return {"ids": ids, "unscored": [at for at, label in enumerate(labels) if label == -100]}


def _sequences(row: Mapping[str, Any], kind: str, pad: int) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of a row's texts; a label of -100 is not scored.

    In a pretraining nothing learns the padding token, which ends every text of a tokenizer that pads with EOS.
    """
    if kind == "pt":
        return [(row["input_ids"], [-100 if token == pad else token for token in row["input_ids"]])]
    prefixes = ("chosen_", "rejected_") if kind in PAIRED else ("",)
    return [(row[f"{prefix}input_ids"], row[f"{prefix}labels"]) for prefix in prefixes]


def _padded(model: Any, batch: Sequence[tuple[list[int], list[int]]]) -> tuple[Any, Any, Any]:
    """Ids, labels and attention mask on the model's device, padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    device = next(model.parameters()).device
    ids, labels, mask = (
        pad_sequence([torch.tensor(values) for values in columns], batch_first=True, padding_value=padding).to(device)
        for columns, padding in (
            ([ids for ids, _ in batch], 0),
            ([labels for _, labels in batch], -100),
            ([[1] * len(ids) for ids, _ in batch], 0),
        )
    )
    return ids, labels, mask


def _likelihoods(model: Any, batch: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, int]]:
    from llamafactory.train.trainer_utils import get_batch_logps

    ids, labels, mask = _padded(model, batch)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    values, tokens = get_batch_logps(logits, labels)
    return list(zip(values.tolist(), tokens.tolist(), strict=True))


def _rewards(model: Any, batch: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, int]]:
    """The value head's output at the last token, as llamafactory/train/rm/trainer.py takes it."""
    ids, _, mask = _padded(model, batch)
    model.v_head.to(ids.device)
    _, _, values = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    lengths = mask.sum(dim=-1, keepdim=True)
    rewards = values.gather(dim=-1, index=lengths - 1).squeeze(-1).float()
    return list(zip(rewards.tolist(), lengths.squeeze(-1).tolist(), strict=True))


if __name__ == "__main__":
    entry.run(main)
