"""A project whose chain takes a fraction of a second: a hollow model, and shell scripts in place of the stages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.lib import layout, process
from orchestrator.lib.files import HashCache
from orchestrator.lib.step import Step
from orchestrator.pipeline import workflow
from orchestrator.runs import store
from orchestrator.spec.load import load_project
from tests.conftest import make_project, write_tree

LEDGER = "ledger.txt"
"""In the project: a line "stage process-id" for each start of a stage."""
FIGURES = '{"metrics": {"tuned": {"n": 20, "accuracy": {"value": 90.0, "low": 80.0, "high": 95.0}}}, '
CONTENTS = {
    layout.SERVING: '{"tokens": {"longest": 60, "mean": 40.0}, "from": "DIGEST"}',
    "train/trainer_state.json": '{"log_history": [{"loss": 1.0, "grad_norm": 1.0, "step": 1}], "from": "DIGEST"}',
    "train/all_results.json": '{"eval_loss": 1.0, "from": "DIGEST"}',
    layout.summary("score"): FIGURES + '"from": "DIGEST"}',
    layout.summary("baselines"): '{"metrics": {}, "comparisons": [], "detail": {}, "from": "DIGEST"}',
    layout.summary("judge"): FIGURES + '"failures": [], "from": "DIGEST"}',
    layout.summary("baselines"): '{"metrics": {}, "detail": {}, "comparisons": [], "from": "DIGEST"}',
}
ROW = '{"id": "1", "prompt": "标题", "label": "体育", "prediction": "DIGEST"}'
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 1024,
}
NO_WEIGHTS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file without a tensor."""

Scripts = Mapping[str, str]
"""Stage → shell lines run before it writes its outputs; `$first` is the first of these files, `$input` the first that
it reads, `$ledger` the ledger."""


def make(folder: Path) -> Path:
    """A project that can be planned; the converter and the cache lie beside it."""
    write_tree(folder / "model", {"config.json": json.dumps(CONFIG), "tokenizer.json": "{}"})
    (folder / "model/tokenizer_config.json").write_text("{}")
    (folder / "model/model.safetensors").write_bytes(NO_WEIGHTS)
    write_tree(folder / "llama.cpp", {"convert_hf_to_gguf.py": ""})
    return make_project(folder / "project", Path("../model"))


def environment(folder: Path) -> dict[str, str]:
    """What the tool is told of the folder that `make` filled."""
    return {"LLAMA_CPP_DIR": str(folder / "llama.cpp"), "ORCHESTRATOR_CACHE": str(folder / "cache")}


class Nobody:
    """A watcher that shows nothing."""

    def starts(self, *_: object) -> None: ...
    def tick(self) -> None: ...
    def ends(self, *_: object) -> None: ...


@contextmanager
def project_in(folder: Path) -> Iterator[Path]:
    """A project that `make` makes, and the tool told to carry it out with shell scripts, while the block lasts."""
    made = make(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        patch.setattr(workflow, "launcher", lambda *_: None)
        patch.setattr(workflow, "start", launcher(made, {}))
        patch.setattr(process, "LOOK_SECONDS", 0.002)
        yield made


def carry_out(project: Path, *overrides: str, phase: str = "verify", paranoid: bool = False) -> store.Run:
    """As `orchestrator run`, or up to another phase, in this process."""
    loaded = load_project(project / "spec.yaml", overrides, paranoid=paranoid)
    return workflow.run_until(loaded, phase, Nobody(), lambda done, total: None)


def hashes(project: Path) -> HashCache:
    """An empty memory of hashes."""
    return HashCache(project.parent / "none.json")


def launcher(project: Path, scripts: Scripts) -> Callable[[Step, process.Command], process.Child]:
    """Starts a shell script for each stage, in a real process."""

    def launch(step: Step, command: process.Command) -> process.Child:
        text = script(step, inputs(step, command.cwd), project / LEDGER, scripts.get(step.stage, ""))
        return process.start(process.Command(("/bin/sh", "-ec", text), command.cwd, command.log, command.env))

    return launch


def inputs(step: Step, folder: Path) -> list[str]:
    """The outputs of the stages that a step needs, as the record names them."""
    run = store.load(folder)
    return sorted(output["path"] for stage in step.needs for output in run.stage(stage)["outputs"])


def script(step: Step, read: list[str], ledger: Path, before: str) -> str:
    """What a stage does: it says that it began, reads all its inputs, and writes what depends on each byte of them."""
    targets = [*step.partials, *(path for path in step.expects if path not in step.partials.values())]
    digest = f"cat {shlex.join(read)} | sha256sum | cut -c1-64" if read else "echo from the data"
    lines = [f'echo "{step.stage} $$" >> {shlex.quote(str(ledger))}', f"first={shlex.quote(targets[0])}"]
    lines += [f"ledger={shlex.quote(str(ledger))}", f"input={shlex.quote(read[0]) if read else ''}", before]
    lines += [f"digest=$({digest})", *(_written(path) for path in targets), f"echo {step.stage} is done"]
    return "\n".join(lines)


HEADER = '{"__metadata__": {"from": "%-64s"}}'
LENGTH = "".join(f"\\{byte:03o}" for byte in len(HEADER % "").to_bytes(8, "little"))
"""Of the header, as the eight bytes that a safetensors file begins with."""


def _written(path: str) -> str:
    if path.endswith(".safetensors"):
        return f"printf '{LENGTH}{HEADER}' \"$digest\" > {shlex.quote(path)}"
    content = CONTENTS.get(path, ROW if path.endswith(".jsonl") else '{"from": "DIGEST", "is": "PATH"}')
    text = shlex.quote(content.replace("PATH", path)).replace("DIGEST", "'\"$digest\"'")
    return f"printf '%s\\n' {text} > {shlex.quote(path)}"
