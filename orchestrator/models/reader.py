"""A model in torch, loaded by LLaMA-Factory, that is given answers to read: what it expects at each of their tokens.

As `GgufModel.read_answers` has it of a GGUF.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.evaluation.intervals import Array
from orchestrator.models.decoder import common_prefix

T = TypeVar("T")
Look = Callable[[Array, int, int], T]
"""What is made of the logits for a row's token: row, and its number among those that are read, as in GgufModel."""
Places = Sequence[Sequence[int]]


def load(arguments: Mapping[str, Any]) -> tuple[Any, Any, int]:
    """A model as LLaMA-Factory answers with it, its tokenizer, and how many rows it takes at once."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    of_model, of_data, of_training, of_finetuning, _ = get_train_args(dict(arguments))
    tokenizer = load_tokenizer(of_model)["tokenizer"]
    get_template_and_fix_tokenizer(tokenizer, of_data)
    return load_model(tokenizer, of_model, of_finetuning, False), tokenizer, of_training.per_device_eval_batch_size


def read_answers(
    model: Any, pairs: Sequence[tuple[list[int], list[int]]], look: Look[T], at_once: int, own: Places = ()
) -> list[list[T]]:
    """For each (prompt, answer) what `look` makes of the logits for every token of the answer.

    `own` has tokens of each prompt that are looked at before those, counted from its end (−1 is its last). What all
    prompts begin with is computed once, and logits only where a row of a batch is looked at, as far as the model can.
    """
    own = own or [()] * len(pairs)
    prefix = Prefix.of(model, common_prefix([p[: of[0]] if of else p for (p, _), of in zip(pairs, own, strict=True)]))
    places = [
        [len(prompt) - prefix.tokens - 1 + place for place in (*of, *range(len(answer)))]
        for (prompt, answer), of in zip(pairs, own, strict=True)
    ]
    found: dict[int, list[T]] = {}
    by_length = sorted(range(len(pairs)), key=lambda row: sum(map(len, pairs[row])))  # the least padding
    for start in range(0, len(pairs), at_once):
        rows = by_length[start : start + at_once]
        texts = [[*pairs[row][0], *pairs[row][1]][prefix.tokens :] for row in rows]
        for row, logits in zip(rows, _logits(model, texts, [places[row] for row in rows], prefix), strict=True):
            found[row] = [look(logits[at].float().cpu().numpy(), row, n) for n, at in enumerate(places[row])]
        print(f"{len(found)}/{len(pairs)}", flush=True)
    return [found[row] for row in range(len(pairs))]


@dataclass(frozen=True)
class Prefix:
    """What texts begin with alike, as a model has read it; of no tokens where it cannot go on from there."""

    tokens: int = 0
    past: Any = None
    """Keys and values of each layer, of one sequence."""

    @classmethod
    def of(cls, model: Any, ids: Sequence[int]) -> Prefix:
        """Have it read. A model that keeps a state, or a window of its past only, reads each text whole."""
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        if not ids:
            return cls()
        device = next(model.parameters()).device
        with torch.no_grad():
            past = model(input_ids=torch.tensor([[*ids]], device=device), use_cache=True).get("past_key_values")
        whole = type(past) is DynamicCache and all(type(layer) is DynamicLayer for layer in past.layers)
        return cls(len(ids), past) if whole else cls()

    def before(self, mask: Any) -> dict[str, Any]:
        """Arguments of a forward pass over what comes behind, with its attention mask (rows × tokens)."""
        import torch

        if not self.tokens:
            return {"attention_mask": mask, "use_cache": False}
        whole = torch.cat([mask.new_ones(len(mask), self.tokens), mask], dim=1)
        return {"attention_mask": whole, "past_key_values": self.of_rows(len(mask)), "use_cache": True}

    def of_rows(self, rows: int) -> Any:
        """The past of so many texts; a pass adds its own keys to it."""
        past = copy.deepcopy(self.past)
        past.batch_repeat_interleave(rows)
        return past


def _logits(
    model: Any, texts: Sequence[list[int]], places: Sequence[Sequence[int]], prefix: Prefix
) -> Iterator[Mapping[int, Any]]:
    """Of each text behind a prefix the logits at its places, and at those of the others; all where none are chosen."""
    import torch

    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids, _, mask = padded(model, [(text, []) for text in texts])
    wanted: Sequence[int] = range(ids.shape[1])
    only = {}
    if "logits_to_keep" in inspect.signature(bare.forward).parameters:
        wanted = sorted({place for of in places for place in of})
        only = {"logits_to_keep": torch.tensor(wanted, device=ids.device)}
    with torch.inference_mode():
        for row in model(input_ids=ids, **prefix.before(mask), **only).logits:
            yield dict(zip(wanted, row, strict=True))


def padded(model: Any, batch: Sequence[tuple[list[int], list[int]]]) -> tuple[Any, Any, Any]:
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
