"""A short real training of the builtin model on the shipped headlines must beat the untouched model by far."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import run_tool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("--set", "data.max_samples=64", "--set", "train.num_train_epochs=1", "--set", "export.gguf=[f16]")


def test_the_shipped_spec_learns(tmp_path: Path, builtin_model: Path) -> None:
    shutil.copy(ROOT / "spec.yaml", tmp_path)
    shutil.copytree(ROOT / "datasets", tmp_path / "datasets")

    done = run_tool(("run", "--json", *ARGUMENTS), tmp_path)

    assert done.code == 0, done.stderr
    metrics = done.json["metrics"]
    assert metrics["tuned"]["accuracy"]["low"] > metrics["base"]["accuracy"]["high"] + 5
    assert metrics["gguf-f16"]["agreement_with_tuned"]["value"] >= 98
