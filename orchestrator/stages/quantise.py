"""quantise-…: llama.cpp makes a smaller GGUF of the one that was converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib import layout
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
        from orchestrator.models.quantiser import quantise

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
