"""What a text's label can be told from: a model's hidden states, and the text's own n-grams.

A model says what a text means in a language that it reads; n-grams of characters say which texts use the same words in
any language, and need a model for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.lib.errors import MissingError

if TYPE_CHECKING:
    from orchestrator.evaluation.intervals import Array

COMPONENTS = 512
"""Directions that are kept of the n-grams; of fewer rows all are."""
LONGEST = 512
"""Tokens of a text that the model reads."""
ASKED = ('"', '" means in one word: "')
"""Around a text, so that the last tokens sum it up: Jiang et al., Scaling sentence embeddings with large language
models, Findings of EMNLP 2024."""
NGRAMS = (1, 3)
"""Characters."""


def states(base: Path, texts: Sequence[str]) -> Array:
    """Rows × 2 hidden sizes: the means over the tokens of the middle and of the last hidden states.

    Each column is standardised, and each half of each row then has unit length, so that none outweighs another. The
    first token is left out of the means: its state says nothing of a text and is a hundred times longer than others
    (Xiao et al., Efficient streaming language models with attention sinks, ICLR 2024).
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    model = AutoModel.from_pretrained(str(base), dtype=torch.float32).eval()
    before, after = ASKED
    end = tokenizer(after, add_special_tokens=False).input_ids
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(before + text, truncation=True, max_length=LONGEST).input_ids + end
            read = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
            found.append([read[at][0, 1:].mean(0).numpy() for at in (len(read) // 2, -1)])
    halves = np.array(found, dtype=np.float64)
    spread = halves.std(axis=0)
    halves = (halves - halves.mean(axis=0)) / np.where(spread > 0, spread, 1)
    lengths = np.linalg.norm(halves, axis=2, keepdims=True)
    return np.asarray((halves / np.where(lengths > 0, lengths, 1)).reshape(len(halves), -1))


def ngrams(texts: Sequence[str]) -> Array:
    """Rows × COMPONENTS at most: the principal directions of TF-IDF weights of n-grams of 1 to 3 characters.

    Raises MissingError without scikit-learn.
    """
    import numpy as np

    try:
        from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped]
        from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError(f"scikit-learn cannot be used: {error}", "pip install scikit-learn") from None
    weights = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True).fit_transform(texts)
    return np.asarray(TruncatedSVD(min(COMPONENTS, *weights.shape), random_state=0).fit_transform(weights))
