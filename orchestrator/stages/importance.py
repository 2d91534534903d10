"""importance: what matters in each weight matrix on the run's own training rows, for types that lose by rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json
from orchestrator.lib.step import Step
from orchestrator.spec.export import Export
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import CONVERTED, source_type

if TYPE_CHECKING:
    from orchestrator.models.gguf import GgufModel

NAME = "importance"
ROWS = 150
"""Training rows that are read, spread evenly."""
TOKENS = 16_384
"""Tokens that are read at most, so that long rows do not take long."""
ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Importance(Stage):
    """The importance matrix of the converted GGUF."""

    program = NAME
    phase = "quantise"
    gguf: str
    rows: str
    matrix: str
    most_rows: int = ROWS
    most_tokens: int = TOKENS

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where a type that needs it, or gains by it, is asked for."""
        export = context.spec.export
        if not any(uses_it(export, kind) for kind in export.kinds):
            return []
        gguf = layout.gguf(context.spec.name, source_type(export.kinds))
        stage = cls(gguf, layout.TRAIN_ROWS, layout.importance(context.spec.name))
        return [
            stage.step(
                NAME,
                expects=(stage.matrix,),
                needs=("prepare", "convert"),
                reads=(stage.gguf, stage.rows),
                inputs=context.picked("llama-cpp-python"),
            )
        ]

    def run(self) -> None:
        """Write it. Raises StageError when llama.cpp fails."""
        from orchestrator.models import importance
        from orchestrator.models.gguf import GgufModel

        with GgufModel(Path(self.gguf)) as model:
            texts = list(self._texts(model, read_json(Path(self.rows))))
            importance.write(Path(self.matrix), importance.collect(model, texts), self.rows)

    def _texts(self, model: GgufModel, rows: Sequence[Any]) -> Iterator[list[int]]:
        """Rows evenly spread over all of them, as tokens, until there are enough; what all begin with is read once."""
        from orchestrator.models.decoder import common_prefix

        spread = rows[:: max(1, len(rows) // self.most_rows)][: self.most_rows]
        texts = [tokens for row in spread if len(tokens := model.tokenize(text_of(model, row))) > 1]
        shared = len(common_prefix(texts)) if texts else 0
        left = self.most_tokens - shared
        for tokens in texts:
            yield tokens[: shared + left]
            if (left := left - len(tokens) + shared) <= 0:
                return


def uses_it(export: Export, kind: str) -> bool:
    """Whether a GGUF of this type is quantised by what matters. From q8_0 on there is next to nothing to gain."""
    return export.importance == "auto" and kind not in CONVERTED


def text_of(model: GgufModel, row: Any) -> str:
    """A training row as the model sees it: by the template inside the GGUF, or its bare texts where that has no words
    for its roles, as for tools."""
    from orchestrator.stages.asked import prompt_text

    if "text" in row:
        return str(row["text"])
    turns = [*row["conversations"], *([row["chosen"]] if row.get("chosen") else [])]
    if any(turn["from"] not in ROLES for turn in turns):
        return "\n".join(turn["value"] for turn in turns)
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return prompt_text(model, [*system, *({"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns)])
