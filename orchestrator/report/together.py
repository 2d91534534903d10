"""Whether what is installed works together: imported in one process, and a toy trained, converted and asked."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from orchestrator.executors.warm import WarmLauncher
from orchestrator.lib import process
from orchestrator.lib.errors import MissingError, OrchestratorError
from orchestrator.lib.files import read_json, sha256_of, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.machine import environment
from orchestrator.models import sources
from orchestrator.pipeline.failure import tail
from orchestrator.pipeline.plan import Plan
from orchestrator.pipeline.stage_process import Starter, start
from orchestrator.pipeline.workflow import Task, assign, carry_out
from orchestrator.report.doctor_packages import Check
from orchestrator.runs.reuse import Planned
from orchestrator.spec.load import load_project

NAMES = (*environment.TORCH, "llama-cpp-python", "llamafactory", "transformers", "numpy")
"""Distributions whose versions decide whether the others can be imported."""
TOKENIZER_OF = "builtin:smollm2-135m-instruct"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ROWS = 10
KIND = "q8_0"
"""A type that llama.cpp multiplies with this CPU's own instructions, which it was compiled for."""
LAST = f"ask-{KIND}"
SPEC = f"""\
name: toy
model: {{base: toy, template: smollm2}}
data: {{train: train.json, eval: eval.json, accept: [leakage_exact]}}
train: {{max_steps: 1, per_device_train_batch_size: 1, gradient_accumulation_steps: 1}}
evaluate: {{baseline: false, max_new_tokens: 2}}
export: {{gguf: [{KIND}]}}
"""
IMPORTS = Step("imports", "prepare", (sys.executable, "-m", "orchestrator.report.together_process"))
VOCABULARY, SIZE, LAYERS = 49_152, 32, 2


def imports() -> Check:
    """Whether all of it can be imported in one process; what was seen to work is not tried again."""
    if not _seen().exists():
        with tempfile.TemporaryDirectory() as folder:
            if reason := _imported(start, Path(folder)):
                return _unfit("imports", reason)
        _remember()
    return Check("imports", "ok", "torch, torchvision, torchaudio, llama_cpp and llamafactory can be imported together")


def trial() -> Iterator[Check]:
    """The imports as the stages do them, and one step of training a toy, whose GGUF is asked; leaves nothing behind."""
    launch = WarmLauncher()
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
        if reason := _imported(launch, Path(folder)):
            yield _unfit("imports", reason)
            return
        _remember()
        yield imports()
        try:
            make_toy(Path(folder))
            ship(Path(folder), launch)
        except OrchestratorError as error:
            yield Check("trial", "missing", error.message, error.hint)
        else:
            yield Check("trial", "ok", "a toy was trained for one step, converted to GGUF and asked in llama.cpp")


def make_toy(project: Path) -> None:
    """A project on a model of two tiny layers with random weights and the built-in model's tokenizer."""
    source = sources.find_folder(TOKENIZER_OF, project)
    if source is None:
        raise MissingError(f"{TOKENIZER_OF} is not here", f"Run `orchestrator model fetch {TOKENIZER_OF}`.")
    (project / "toy").mkdir()
    for name in TOKENIZER:
        shutil.copy(source / name, project / "toy")
    size = {"hidden_size": SIZE, "intermediate_size": SIZE, "num_hidden_layers": LAYERS, "head_dim": SIZE // 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    write_json(project / "toy/config.json", {**read_json(source / "config.json"), **size, **heads})
    _write_weights(project / "toy/model.safetensors")
    turns = [({"from": "human", "value": f"{row} + 1"}, {"from": "gpt", "value": str(row + 1)}) for row in range(ROWS)]
    for name, part in (("train.json", turns), ("eval.json", turns[:2])):
        write_json(project / name, [{"conversations": turn} for turn in part])
    write_text(project / "spec.yaml", SPEC)


def _write_weights(target: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    square, row = (SIZE, SIZE), (SIZE,)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, SIZE), "model.norm.weight": row}
    for layer in range(LAYERS):
        of = f"model.layers.{layer}"
        shapes |= {f"{of}.self_attn.{name}_proj.weight": square for name in "qkvo"}
        shapes |= {f"{of}.mlp.{name}_proj.weight": square for name in ("gate", "up", "down")}
        shapes |= {f"{of}.{name}_layernorm.weight": row for name in ("input", "post_attention")}
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, str(target), {"format": "pt"})


def ship(project: Path, launch: Starter) -> None:
    """Carry out what the answers of a project's GGUF need, and nothing else."""
    task = assign(load_project(project / "spec.yaml"), "verify")
    steps = {planned.step.stage: planned for planned in task.target_plan.steps}
    plan = Plan(task.target_plan.spec, task.target_plan.run, tuple(needed(steps, LAST).values()))
    carry_out(Task(task.project, task.full_plan, plan, task.run), Nobody(), launch)


def needed(steps: dict[str, Planned], stage: str) -> dict[str, Planned]:
    """A stage with all that it needs, in the order of the chain."""
    names = {stage}
    for name in reversed(steps):
        if name in names:
            names |= set(steps[name].step.needs)
    return {name: planned for name, planned in steps.items() if name in names}


class Nobody:
    """Watches, and says nothing."""

    def starts(self, step: Step, folder: Path) -> None: ...

    def tick(self) -> None: ...

    def ends(self, step: Step, status: str, seconds: float) -> None: ...


def _imported(launch: Starter, folder: Path) -> str:
    """'' when the imports worked, else what they said last."""
    log = folder / "imports.log"
    if process.wait(launch(IMPORTS, process.Command(IMPORTS.argv, folder, log))) == 0:
        return ""
    return (tail(log) or ["the process that imports them was killed"])[-1].strip()


def _remember() -> None:
    with contextlib.suppress(OSError):  # where Python's folder is another's, it is looked at each time
        _seen().touch()


def _seen() -> Path:
    """The mark, in the environment itself, that what is installed there has been imported together.

    Its name holds versions, and when packages came last, since the same version may be another build.
    """
    facts = []
    for name in NAMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found = metadata.distribution(name)
            facts.append(f"{name} {found.version} {Path(str(found.locate_file(''))).stat().st_mtime}")
    return Path(sys.prefix) / f".imported-{sha256_of(' '.join(facts))[:16]}"


def _unfit(name: str, reason: str) -> Check:
    return Check(name, "missing", f"what is installed does not fit together: {reason}", environment.install_again())
