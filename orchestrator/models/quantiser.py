"""llama.cpp's quantiser: one GGUF into a smaller one, by one type or by a type for each kind of matrix."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.lib.cpu import threads
from orchestrator.lib.errors import StageError


def quantise(
    source: Path, target: Path, kind: str, importance: Path | None = None, types: Mapping[str, str] | None = None
) -> None:
    """Write `target`: of a whole-file type such as q4_k_m, except that matrices whose name a pattern fits get a type of
    their own (regular expression → tensor type such as q4_k; the first that fits counts).

    Raises StageError when llama.cpp reports a failure.
    """
    import llama_cpp

    from orchestrator.models import importance as matrices

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{_name(kind)}")
    parameters.nthread = threads()
    if importance:
        parameters.imatrix = given = matrices.as_argument(matrices.read(importance))  # noqa: F841 - is kept alive
    if types:
        parameters.tt_overrides = _overrides(types)
    if (code := llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), parameters)) != 0:
        raise StageError(f"llama.cpp could not quantise {source} to {kind} (code {code})")


def _overrides(types: Mapping[str, str]) -> Any:
    import llama_cpp
    from gguf import GGMLQuantizationType

    entries = (llama_cpp.llama_model_tensor_override * (len(types) + 1))()
    for entry, (pattern, kind) in zip(entries, types.items(), strict=False):
        entry.pattern, entry.type = pattern.encode(), int(GGMLQuantizationType[kind.upper()])
    return ctypes.cast(entries, ctypes.POINTER(llama_cpp.llama_model_tensor_override))


def _name(kind: str) -> str:
    return "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"
