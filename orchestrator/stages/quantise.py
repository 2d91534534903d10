"""quantise-…: llama.cpp makes a smaller GGUF of the one that was converted, by one type or by a type for each kind of
matrix."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.cpu import threads
from orchestrator.lib.errors import StageError
from orchestrator.lib.step import Step
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import source_type
from orchestrator.stages.importance import NAME as IMPORTANCE
from orchestrator.stages.importance import uses_it


@dataclass(frozen=True)
class Quantise(Stage):
    """`llama_model_quantize`."""

    program = "quantise"
    phase = "quantise"
    optional = ("importance",)
    source: str
    target: str
    type: str
    importance: str | None = None
    """The importance matrix to quantise by."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step for each type that the converter did not write."""
        kinds = context.spec.export.gguf
        source = source_type(context.spec.export.kinds)
        return [_step(context, source, kind) for kind in kinds if kind != source]

    def run(self) -> None:
        """Write the target. Raises StageError when llama.cpp reports a failure."""
        quantise(Path(self.source), Path(self.target), self.type, Path(self.importance) if self.importance else None)


def _step(context: Context, source: str, kind: str) -> Step:
    name = context.spec.name
    target, matters = layout.gguf(name, kind), uses_it(context.spec.export, kind)
    matrix = layout.importance(name) if matters else None
    return Quantise(layout.gguf(name, source), layout.partial(target), kind, matrix).step(
        f"quantise-{kind}",
        expects=(target,),
        needs=("convert", IMPORTANCE) if matters else ("convert",),
        reads=("export/*",),
        inputs=context.picked("llama-cpp-python"),
        partials={layout.partial(target): target},
    )


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
