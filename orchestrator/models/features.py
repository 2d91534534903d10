"""What a base model makes of a text, as numbers that a simple classifier can learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.evaluation.intervals import Array

LONGEST = 512
"""Tokens of a text that are read."""


def features(base: Path, texts: Sequence[str]) -> Array:
    """Rows × 2 hidden sizes: the means over the tokens of the middle and of the last hidden states, standardised.

    Each half has unit length on average, so that a classifier's regularisation means the same for every model.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    model = AutoModel.from_pretrained(str(base), dtype=torch.float32).eval()
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST).input_ids
            states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            found.append([states[at][0].mean(0).numpy() for at in (len(states) // 2, -1)])
    halves = np.array(found, dtype=np.float64)
    spread = halves.std(axis=0)
    halves = (halves - halves.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return np.asarray(np.concatenate(list(halves.transpose(1, 0, 2)), axis=1) / np.sqrt(halves.shape[2]))
