"""What starting the tool loads: not milliseconds, which differ by machine, but modules."""

from __future__ import annotations

import json
import sys

import pytest

from orchestrator.lib import process

HEAVY = {
    "torch",
    "transformers",
    "llamafactory",
    "pydantic",
    "jinja2",
    "yaml",
    "rich",
    "numpy",
    "scipy",
    "optuna",
    "plotly",
    "huggingface_hub",
    "llama_cpp",
}


def loaded_by(code: str) -> set[str]:
    """The top-level packages loaded after some code, in a fresh interpreter."""
    tail = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    return set(json.loads(process.output([sys.executable, "-c", f"{code}\n{tail}"]).splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    code = "from orchestrator.cli import cli\ntry:\n    cli(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_by(code) & HEAVY == set()


@pytest.mark.parametrize(
    "module", ["orchestrator.spec.load", "orchestrator.pipeline.plan", "orchestrator.pipeline.workflow"]
)
def test_planning_loads_no_machine_learning(module: str) -> None:
    heavy = {"torch", "transformers", "llamafactory", "numpy", "scipy", "optuna", "plotly", "llama_cpp"}
    assert loaded_by(f"import {module}") & heavy == set()
