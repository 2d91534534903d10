"""The real board with our data, and a training made in it that becomes a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.lib import process
from orchestrator.runs import store
from tests.conftest import make_project, run_tool

pytestmark = pytest.mark.slow

TRAINED = "webui/saves/tiny/lora/train_2026"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, str, dict[str, Any]]:
    """A project whose board was opened and ended with Ctrl-C: its folder, the address, and what the page is made of."""
    import httpx

    project = make_project(tmp_path_factory.mktemp("board"), tiny_model)
    command, env = [sys.executable, "-m", "orchestrator", "webui"], process.child_environment({"BROWSER": "true"})
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True, env=env) as tool:
        assert tool.stdout is not None
        url = tool.stdout.readline().strip()
        page = httpx.get(f"{url}/config", trust_env=False).json()
        rebound = httpx.get(f"{url}/config", trust_env=False, headers={"Host": "evil.example"})
        assert (rebound.status_code, "components" in rebound.text) == (421, False)
        tool.send_signal(signal.SIGINT)
        assert tool.wait(timeout=60) == 0
    return project, url, page


def test_the_board_opens_on_this_machine_only_and_ends(opened: tuple[Path, str, dict[str, Any]]) -> None:
    import httpx

    _, url, page = opened
    assert url.startswith("http://127.0.0.1:")
    assert any(["tiny", "tiny"] in (part["props"].get("choices") or []) for part in page["components"])
    with pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False)


def test_what_was_trained_in_the_board_becomes_a_run(opened: tuple[Path, str, dict[str, Any]]) -> None:
    project = opened[0]
    told = trained_in_the_board(project / "webui")
    assert [name for name, _ in told["sets"]] == ["tiny-train", "tiny-eval"]
    done = run_tool(("runs", "adopt", TRAINED, "--set", "evaluate.baseline=false", "--json"), project)
    assert done.code == 0, done.stderr
    spec, run = done.json["spec"], store.find(project / "runs", done.json["run"])
    entry = run.stage("train")
    assert (entry["status"], entry["exit_code"], entry["adopted_from"]) == ("completed", None, TRAINED)
    assert (run.folder / "train/adapter_model.safetensors").is_file()
    assert not (run.folder / "train/training_args.yaml").exists()
    assert run.record["lineage"]["adopted_from"]["path"] == TRAINED
    again = yaml.safe_load((run.folder / "configs/train.yaml").read_text())
    theirs = yaml.safe_load((project / TRAINED / "training_args.yaml").read_text())
    same = ("learning_rate", "num_train_epochs", "lora_rank", "save_steps", "seed", "warmup_steps", "lora_target")
    assert {key: again[key] for key in same if key in theirs} == {key: theirs[key] for key in same if key in theirs}
    scored = run_tool(("evaluate", spec, "--json"), project)
    assert scored.code == 0, scored.stderr
    assert scored.json["id"] == run.id and "accuracy" in scored.json["metrics"]["tuned"]
    assert scored.json["stages"]["train"] == entry
    assert scored.json["lineage"]["adopted_from"] == run.record["lineage"]["adopted_from"]


def trained_in_the_board(folder: Path) -> dict[str, Any]:
    """Train there; returns the data sets and finished runs that the board offers."""
    argv = [sys.executable, "-m", "tests.board_trains", "tiny", "train_2026"]
    env = process.child_environment({"PYTHONPATH": str(ROOT)})
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return told
