"""What a diagnosis says: a kind, a sentence with the place, and what cures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "template", "bos", "system", "thinking", "stop", "parameters", "context", "quantisation", "adapter", "base",
    "tokenizer",
]  # fmt: skip
TITLES = {
    "template": "template", "bos": "BOS", "system": "system text", "thinking": "thinking", "stop": "stop words",
    "parameters": "parameters", "context": "context length", "quantisation": "quantisation", "adapter": "adapter",
    "base": "base model", "tokenizer": "tokenizer",
}  # fmt: skip
"""Kind → what people read; in this order they are told."""
IN_MODELFILE = frozenset({"template", "system", "thinking", "stop", "parameters", "context"})
"""What another Modelfile cures; BOS only where the template writes it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is served otherwise than it was trained."""

    kind: Kind
    sentence: str
    cure: str
    wrong: bool = True
    """Whether it alone can spoil answers; else it is worth knowing."""
