"""What a diagnosis looks at, and what it says: a kind, a sentence with the place, and what cures it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.chat_template.registry import Definition
from orchestrator.serving.diagnose.probes import Probe, Row
from orchestrator.serving.diagnose.shipped import Shipped
from orchestrator.serving.diagnose.trained import Prompt

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was trained and what is served, ready to be compared."""

    shape: Definition
    """The template of training, with its system text."""
    thinking: bool | None
    system: str
    bos: str | None
    stop: Sequence[str]
    """What ends an answer; the first is EOS."""
    probes: Sequence[Probe]
    trained: Sequence[Prompt]
    shipped: Shipped
    encode: Callable[[str], Sequence[int]]
    """The tokens of training."""
    served_tokens: Callable[[str], Sequence[int]] | None = None
    """Those of the GGUF; None where it cannot be read."""
    ends: Callable[[str], bool] | None = None
    """Whether the GGUF ends an answer at a word by itself."""
    cutoff: int | None = None
    """Tokens of a row in training at most; None where nothing tells."""
    rows: Sequence[Row] = ()
    known: Callable[[Sequence[str]], str] = lambda texts: ""
    """The name of the template that writes these prompts, or ""."""
