"""What a training needs beyond the usual is known before it starts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib.errors import MissingError
from orchestrator.machine import environment, requirements
from orchestrator.machine.requirements import ARGUMENTS, QUANTISERS, TRACKERS, missing, trackers
from orchestrator.report import doctor_packages
from orchestrator.spec.training import check_training
from tests.conftest import Result, run_tool
from tests.test_doctor import patient

GPU = [{"name": "NVIDIA H100", "memory_mib": 81559, "driver": "580.95"}]


def messages(training: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one.message, one.fix) for one in missing(training)]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with none of the packages, and a GPU."""
    monkeypatch.setattr(requirements, "_is_installed", lambda package: False)
    monkeypatch.setattr(environment, "gpus", lambda: GPU)


NOT = "which is not installed"


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("training", "message", "fix"),
    [
        ({"report_to": "tensorboard"}, f"train.report_to: tensorboard needs tensorboard, {NOT}", "tensorboard"),
        ({"report_to": ["wandb"]}, f"train.report_to: wandb needs wandb, {NOT}", "wandb"),
        ({"report_to": "mlflow"}, f"train.report_to: mlflow needs mlflow, {NOT}", "mlflow"),
        ({"report_to": "swanlab"}, f"train.report_to: swanlab needs swanlab, {NOT}", "swanlab"),
        ({"report_to": "trackio"}, f"train.report_to: trackio needs trackio, {NOT}", "trackio"),
        ({"report_to": "comet_ml"}, f"train.report_to: comet_ml needs comet_ml, {NOT}", "comet-ml"),
        ({"use_galore": True}, f"train.use_galore needs galore_torch, {NOT}", "galore-torch"),
        ({"deepspeed": "/z3.json"}, f"train.deepspeed needs deepspeed, {NOT}", "deepspeed"),
        ({"quantization_bit": 4}, f"train.quantization_bit: 4 needs bitsandbytes, {NOT}", "bitsandbytes"),
        (
            {"quantization_bit": 8, "quantization_method": "eetq"},
            f"train.quantization_bit: 8 needs eetq, {NOT}",
            "eetq",
        ),
        ({"quantization_bit": 3, "quantization_method": "hqq"}, f"train.quantization_bit: 3 needs hqq, {NOT}", "hqq"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(training: dict[str, Any], message: str, fix: str) -> None:
    assert messages(training) == [(message, f"pip install {fix}")]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("training", [{}, {"report_to": "none"}, {"report_to": ["all"]}, {"use_badam": False}])
def test_nothing_is_asked_of_a_plain_training(training: dict[str, Any]) -> None:
    assert messages(training) == []


@pytest.mark.parametrize(
    ("training", "gpus", "lacks"),
    [
        ({"quantization_bit": 4}, GPU, []),
        ({"quantization_bit": 4}, [], ["train.quantization_bit: 4 needs an NVIDIA GPU, and there is none"]),
        (
            {"quantization_bit": 8, "use_cpu": True},
            GPU,
            ["train.quantization_bit: 8 needs an NVIDIA GPU, and use_cpu is set"],
        ),
        ({"quantization_bit": 4, "quantization_method": "hqq"}, [], []),
        ({"quantization_method": "bnb"}, [], []),
    ],
)
def test_who_needs_a_gpu(
    training: dict[str, Any], gpus: list[Any], lacks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "_is_installed", lambda package: True)
    monkeypatch.setattr(environment, "gpus", lambda: gpus)
    assert [message for message, _ in messages(training)] == lacks


def test_either_package_writes_for_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "_is_installed", lambda package: package == "tensorboardX")
    assert messages({"report_to": "tensorboard"}) == []


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb_of_nobody").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("wandb_of_nobody") is not None
    assert not requirements._is_installed("wandb_of_nobody")


def test_all_that_is_lacking_is_said_at_once() -> None:
    with pytest.raises(MissingError) as caught:
        requirements.require({"report_to": ["wandb", "swanlab"], "use_apollo": True})
    assert [line.split()[1] for line in caught.value.message.splitlines()] == ["wandb", "swanlab", "needs"]
    assert caught.value.hint == "pip install wandb; pip install swanlab; pip install apollo-torch."


def test_the_tables_name_what_transformers_and_llamafactory_know() -> None:
    integrations = (Path(importlib.util.find_spec("transformers").origin).parent / "integrations").resolve()  # type: ignore[union-attr,arg-type]
    text = (integrations / "integration_utils.py").read_text(encoding="utf-8")
    table = text[text.index("INTEGRATION_TO_CALLBACK = {") :].partition("}")[0]
    assert {name for name in TRACKERS if f'"{name}"' not in table} == set()
    from orchestrator.lib.llamafactory import arguments

    assert set(ARGUMENTS) <= set(arguments()) and set(QUANTISERS) <= set(arguments()["quantization_method"].choices)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["tensorboard", "wandb"], None),
        ("none", None),
        ("tensorbord", "unknown tracker 'tensorbord'; did you mean tensorboard?"),
        ("张量板", "unknown tracker '张量板'; choose from none, all, tensorboard,"),
    ],
)
def test_a_misspelt_tracker_is_an_error_of_the_spec(value: Any, problem: str | None) -> None:
    found = [message for _, message in check_training({"report_to": value})]
    assert len(found) == bool(problem) and all(message.startswith(str(problem)) for message in found)


def test_trackers_of_both_spellings() -> None:
    assert trackers({"report_to": "wandb"}) == trackers({"report_to": ["wandb"]}) == ["wandb"]
    assert trackers({}) == trackers({"report_to": None}) == trackers({"report_to": "none"}) == []


# ---- the commands


def lacking_project(project: Path) -> Path:
    spec = project / "spec.yaml"
    spec.write_text(spec.read_text().replace("train:\n", "train:\n  report_to: [wandb]\n"))
    return project


@pytest.mark.parametrize("command", ["check", "train", "run"])
def test_nothing_starts_before_it_is_there(command: str, project: Path) -> None:
    done = run_tool((command,), lacking_project(project))
    assert (done.code, "wandb" in done.stderr, "pip install wandb" in done.stderr) == (3, True, True)
    assert not (project / "runs").exists()
    assert command != "check" or "good" in done.stdout


def test_a_plan_is_made_all_the_same(project: Path) -> None:
    done = run_tool(("plan", "--set", "train.quantization_bit=4", "--json"), lacking_project(project))
    assert done.code == 0, done.stderr
    assert {"pip install wandb", "pip install bitsandbytes"} <= {one["fix"] for one in done.json["lacking"]}
    shown: Result = run_tool(("plan",), project)
    assert "! train.report_to: wandb needs wandb, which is not installed: pip install wandb" in shown.stdout


def test_the_doctor_names_it(tmp_path: Path) -> None:
    sick = patient(tmp_path)
    sick = type(sick)(sick.project, sick.spec.model_copy(update={"train": {"report_to": "wandb"}}))
    assert [(check.state, check.fix) for check in doctor_packages.asked_for(sick)] == [("missing", "pip install wandb")]


@pytest.mark.slow
def test_a_tracker_writes_into_the_run_and_is_recorded(project: Path) -> None:
    options = ("--set", "train.report_to=tensorboard", "--set", "train.max_steps=2")
    done = run_tool(("train", *options), project)
    assert done.code == 0, done.stderr
    run = next((project / "runs").glob("*/run.json")).parent
    events = list(run.glob("train/**/events.out.tfevents.*"))
    assert events and b"loss" in events[0].read_bytes()
    made_with = json.loads((run / "run.json").read_text())["environment"]
    assert made_with["trackers"] == ["tensorboard"]
    assert {"tensorboard", "tensorboardX"} & set(made_with["packages"])
