"""What a GPU can do that a training does not ask for: said in a plan with a forecast, and left to the user, since the
result is another one, if hardly so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from orchestrator.machine import environment
from orchestrator.models.situation import Situation, devices, training_bytes

BFLOAT16 = (8, 0)
"""The compute capability (NVIDIA Ampere) from which a GPU has bfloat16 and flash attention 2."""
PRECISIONS = ("bf16", "fp16", "pure_bf16")
LIGER_STAGES = ("sft", "pt")
"""Whose loss Liger computes without logits; LLaMA-Factory turns that off where labels are needed otherwise."""


@dataclass(frozen=True, slots=True)
class Card:
    """The least able GPU of this machine, and what is installed for it."""

    capability: tuple[int, ...]
    packages: frozenset[str]


def here() -> Card | None:
    """This machine's; None without a GPU that tells what it can do."""
    found = environment.capabilities()
    packages = frozenset(name for name in ("liger_kernel", "flash_attn") if find_spec(name))
    return Card(min(found), packages) if found else None


def advice(now: Situation, card: Card) -> list[tuple[str, str]]:
    """(arguments, what they would bring) for a training on GPUs, each taken by itself."""
    chosen = now.arguments
    if now.model is None or not devices(chosen):
        return []
    found = []
    able = card.capability >= BFLOAT16
    if able and not any(chosen.get(name) for name in PRECISIONS):
        found.append(("bf16: true", f"half precision on this GPU: {_compared(now, {'bf16': True})}"))
    if able and chosen.get("flash_attn", "auto") == "auto" and "flash_attn" in card.packages:
        found.append(("flash_attn: fa2", "attention without its matrix of scores, on padded rows too"))
    liger = {"enable_liger_kernel": True}
    if "liger_kernel" in card.packages and chosen["stage"] in LIGER_STAGES and not chosen.get("enable_liger_kernel"):
        found.append(("enable_liger_kernel: true", f"fused kernels, the loss without logits: {_compared(now, liger)}"))
    return found


def _compared(now: Situation, changes: Mapping[str, Any]) -> str:
    """The forecast with other arguments, beside that of the present ones."""
    whole, other = (training_bytes(now, more) for more in ({}, changes))
    return f"about {other / 2**30:.1f} GiB instead of {whole / 2**30:.1f}"
