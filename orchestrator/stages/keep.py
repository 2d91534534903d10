"""keep: each checkpoint of a training answers the validation rows, and the best one goes on.

LLaMA-Factory can keep the checkpoint with the least loss; the answers may be best at another. Each is asked as an
adapter GGUF over the base model's own GGUF in llama.cpp, which takes seconds, from the token ids of training.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, StageError
from orchestrator.lib.files import link, read_json, write_json
from orchestrator.lib.step import Step
from orchestrator.models.lora_gguf import LoraConverter, unfit_adapter
from orchestrator.stages.adapter import unfit_base
from orchestrator.stages.base import Context, Stage

if TYPE_CHECKING:
    from orchestrator.evaluation.measure import Task
    from orchestrator.evaluation.rows import Row

NAME = "keep"
WEIGHTS = ("adapter_model.safetensors", "adapter_config.json")
BESIDE = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*")
"""What a checkpoint has of the tokenizer."""
ANSWERS = "evaluation/validation.jsonl"


@dataclass(frozen=True)
class Keep(Stage):
    """The adapter that goes on, and how each checkpoint answered."""

    program = NAME
    phase = "train"
    optional = ("template",)
    base: str
    """The base model's folder."""
    identity: str
    converter: str
    """The llama.cpp folder."""
    version: str
    task: Task
    labels: list[str] | None
    max_new_tokens: int
    template: str | None = None
    """Whose calls the answers hold, of a task about tools."""

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where the spec asks for the best checkpoint. Raises InputError for adapters that no GGUF holds."""
        spec, evaluate = context.spec, context.spec.evaluate
        if not spec.keeps_best:
            return []
        over = "its adapter lies over another run's" if context.over_adapter else None
        if reason := over or unfit_base(context.base_path):
            hint = "Leave train.keep out: the last checkpoint then goes on."
            raise InputError(f"train.keep: accuracy asks checkpoints as adapter GGUFs, and {reason}", hint)
        stage = cls(
            base=str(context.base_path),
            identity=context.base_identity,
            converter=str(context.converter),
            version=context.versions["llama.cpp"],
            task=evaluate.task,
            labels=list(evaluate.labels) if evaluate.labels else None,
            max_new_tokens=evaluate.max_new_tokens,
            template=context.template if evaluate.task == "tools" else None,
        )
        return [
            stage.step(
                NAME,
                expects=(layout.summary(NAME), ANSWERS, *(f"{layout.KEPT}/{name}" for name in WEIGHTS)),
                needs=("prepare", "train"),
                inputs={
                    "base": context.base_identity,
                    "llama.cpp": stage.version,
                    **context.picked("llama-cpp-python"),
                },
                folder=layout.KEPT,
            )
        ]

    def run(self) -> None:
        """Write them. Raises InputError for an adapter that no GGUF holds, StageError where one cannot be asked."""
        from orchestrator.evaluation.checkpoints import measured, summarise
        from orchestrator.evaluation.rows import read_records, write_records

        asked = [row for _, row in read_records(Path(layout.VALIDATION)) if row["ids"]]
        if not asked:
            raise StageError("no validation row can be asked: all have tools", "Name other rows as data.validation.")
        found = []
        folders = list(checkpoints(Path(layout.TRAINED)))
        for number, (folder, state) in enumerate(folders):
            rows = self._answered(folder, asked, number * len(asked), len(folders) * len(asked))
            step, epoch = state["global_step"], state["epoch"]
            found.append(measured(str(folder), step, epoch, rows, self.task, self.labels))
            print(f"epoch {found[-1].epoch:g}: {found[-1].metric} {found[-1].figure.value:.1f}", flush=True)
        told = summarise(found, self.task, self.labels)
        of_all = [{"checkpoint": one.folder, **asdict(row)} for one in found for row in one.rows]
        write_records(Path(ANSWERS), of_all)
        take(Path(told["kept"]), Path(layout.KEPT))
        write_json(Path(layout.summary(NAME)), {NAME: told})
        print(told["sentence"], flush=True)

    def _answered(self, folder: Path, asked: Sequence[dict[str, Any]], before: int, of: int) -> list[Row]:
        """A checkpoint's answers; `before` of the questions to all checkpoints are answered."""
        from orchestrator.evaluation.calls import CallReader
        from orchestrator.evaluation.rows import Row
        from orchestrator.models.gguf import GgufModel

        if reason := unfit_adapter(read_json(folder / "adapter_config.json")):
            raise InputError(f"the adapter cannot become a GGUF: {reason}", "Leave train.keep out.")
        base = Path(self.base)
        made = LoraConverter(base, self.identity, Path(self.converter), self.version, Path(layout.log(NAME)))
        stop_words, texts = read_json(Path(layout.SERVING))["stop"], [""] * len(asked)
        with tempfile.TemporaryDirectory() as scratch:
            made.adapter_gguf(folder, gguf := Path(scratch) / "adapter.gguf")
            with GgufModel(made.base_gguf(base), gguf) as model:
                prompts, stops = [row["ids"] for row in asked], model.stops(stop_words)
                for done, (at, answer) in enumerate(model.answers(prompts, self.max_new_tokens, stops), 1):
                    texts[at] = model.detokenize(answer)
                    print(f"{before + done}/{of}", flush=True)
        rows = [Row(row["id"], row["prompt"], row["label"], text) for row, text in zip(asked, texts, strict=True)]
        reader = CallReader(self.template) if self.template else None
        return [row.with_calls(reader) for row in rows] if reader else rows


def checkpoints(trained: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each whole checkpoint of a training with its state, in order; last what training left, where that is none."""
    steps = set()
    for folder in (*layout.checkpoints(trained), trained):
        if not all((folder / name).is_file() for name in (*WEIGHTS, "trainer_state.json")):
            continue
        state: dict[str, Any] = read_json(folder / "trainer_state.json")
        if state["global_step"] not in steps:
            steps.add(state["global_step"])
            yield folder, state


def take(checkpoint: Path, target: Path) -> None:
    """Lay the adapter of a checkpoint, and its tokenizer, into a folder of their own."""
    shutil.rmtree(target, ignore_errors=True)
    names = {path.name for pattern in BESIDE for path in checkpoint.glob(pattern) if path.is_file()}
    for name in (*WEIGHTS, *sorted(names)):
        link(checkpoint / name, target / name)
