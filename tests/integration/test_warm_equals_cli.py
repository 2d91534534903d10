"""The fast way (warm, `speed: auto`) and llamafactory-cli as it is leave the same files, byte for byte."""

from __future__ import annotations

from pathlib import Path

from orchestrator import files
from tests.conftest import make_project, run_tool

FASTER = "disable_gradient_checkpointing=true"
SAME = (
    "data/train.json",
    "data/prompts.jsonl",
    "train/adapter_model.safetensors",
    "train/tokenizer.json",
    "evaluation/base.jsonl",
    "evaluation/tuned.jsonl",
    "export/Modelfile",
    "export/tiny-f16.gguf",
    "export/tiny-q8_0.gguf",
    "evaluation/gguf-q8_0.jsonl",
    "evaluation/summary-judge.json",
)


def test_the_same_files(tmp_path: Path, tiny_model: Path) -> None:
    warm = finished(tmp_path / "warm", tiny_model, "execution=warm", "speed=auto")
    cli = finished(tmp_path / "cli", tiny_model, "execution=cli", "speed=off")
    assert [FASTER in arguments(run) for run in (warm, cli)] == [True, False]
    assert {path: files.sha256(warm / path) for path in SAME} == {path: files.sha256(cli / path) for path in SAME}
    assert losses(warm) == losses(cli)


def arguments(run: Path) -> list[str]:
    return files.read_json(run / "run.json")["stages"]["train"]["argv"]


def finished(project: Path, model: Path, *sets: str) -> Path:
    """The run's folder. A random model may miss the gate (5); both ways must then miss it in the same words."""
    make_project(project, model)
    options = [part for one in (*sets, "data.accept=[leakage_near]") for part in ("--set", one)]
    done = run_tool(("run", "-q", *options), project)
    assert done.code in (0, 5), done.stderr
    assert "starting each by itself" not in done.stderr
    (run,) = (path.parent for path in (project / "runs").glob("*/run.json"))
    return run


def losses(run: Path) -> list[float]:
    history = files.read_json(run / "train" / "trainer_state.json")["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]
