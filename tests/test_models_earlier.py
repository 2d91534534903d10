"""run:ID as a base model: its merged model, or its adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.data.checks import Mode
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import HashCache, write_json
from orchestrator.models import sources
from orchestrator.pipeline.plan import make_plan, mode_of
from orchestrator.runs import store
from orchestrator.runs.store import Run
from orchestrator.spec.load import load_project
from tests.conftest import make_project, write_tree


@pytest.fixture
def earlier(tmp_path: Path) -> Run:
    """A run with a merged model, in the project's runs/."""
    run = store.create(tmp_path / "runs", "first", stages={"template": {"status": "completed"}})
    write_tree(run.folder / layout.MERGED, {"config.json": "{}", "model.safetensors": "weights"})
    write_json(run.folder / layout.SERVING, {"template": "qwen3"})
    return run


def locate(base: str, project: Path, runs_dir: Path | None = None) -> sources.Base:
    return sources.locate(base, project, HashCache(project / "hashes.json"), runs_dir)


def test_a_run_is_found_by_id_by_part_and_by_folder(earlier: Run, tmp_path: Path) -> None:
    merged = (earlier.folder / layout.MERGED).resolve()
    for name in (earlier.id, "first", str(earlier.folder)):
        assert locate(f"run:{name}", tmp_path).path == merged
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    assert locate(f"run:{earlier.id}", elsewhere, tmp_path / "runs").path == merged
    assert sources.template_of(f"run:{earlier.id}", tmp_path / "runs") == "qwen3"


def test_the_template_of_an_earlier_run_is_found_from_any_folder(
    earlier: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path, Path("run:first"))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    project = load_project(tmp_path / "spec.yaml", ["model.template=auto"])
    assert mode_of(project) == Mode.of("qwen3", project.spec.model.thinking)


def test_other_weights_are_another_model(earlier: Run, tmp_path: Path) -> None:
    before = locate("run:first", tmp_path).identity
    (earlier.folder / layout.MERGED / "model.safetensors").write_text("other weights")
    assert locate("run:first", tmp_path).identity != before


def test_what_cannot_be_continued(earlier: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run matches 'second'"):
        locate("run:second", tmp_path)
    with pytest.raises(InputError, match="names no run"):
        locate("run:", tmp_path)
    earlier.record["stages"] = {}
    earlier.save()
    with pytest.raises(MissingError, match="no merged model") as caught:
        locate("run:first", tmp_path)
    assert "orchestrator export" in caught.value.hint


# ---- run:ID@adapter


@pytest.fixture
def continued(earlier: Run, tmp_path: Path) -> Run:
    """The same run with a LoRA adapter over a folder of the project."""
    write_tree(tmp_path / "base", {"config.json": "{}", "model.safetensors": "of the base"})
    write_tree(earlier.folder / layout.TRAINED, {"adapter_model.safetensors": "adapter"})
    write_json(earlier.folder / layout.TRAINED / "adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": 8})
    write_tree(earlier.folder, {layout.config("train"): "finetuning_type: lora\n"})
    identity = locate("base", tmp_path).identity
    earlier.record["stages"]["train"] = {"status": "completed"}
    earlier.set(lineage={"base_model": {"name": "base", "identity": identity}})
    return earlier


def test_an_adapter_stands_over_its_own_base(continued: Run, tmp_path: Path) -> None:
    found = locate("run:first@adapter", tmp_path)
    assert found.path == tmp_path / "base" and found.adapter == (continued.folder / layout.TRAINED).resolve()
    assert found.identity.startswith(locate("base", tmp_path).identity + "+")
    assert sources.find_folder("run:first@adapter", tmp_path) == tmp_path / "base"
    assert sources.template_of("run:first@adapter", tmp_path / "runs") == "qwen3"
    (continued.folder / layout.TRAINED / "adapter_model.safetensors").write_text("another adapter")
    assert locate("run:first@adapter", tmp_path).identity != found.identity


def test_an_adapter_that_went_on_still_stands_over_the_first_base(continued: Run, tmp_path: Path) -> None:
    name, text = f"run:{continued.id}@adapter", "finetuning_type: lora\nadapter_name_or_path: /first\n"
    second = store.create(tmp_path / "runs", "second", stages={"train": {"status": "completed"}})
    second.set(lineage={"base_model": {"name": name, "identity": "with the adapter", "run": continued.id}})
    write_tree(second.folder / layout.TRAINED, {"adapter_model.safetensors": "went on"})
    write_json(second.folder / layout.TRAINED / "adapter_config.json", {"peft_type": "LORA"})
    write_tree(second.folder, {layout.config("train"): text})
    assert locate("run:second@adapter", tmp_path).path == tmp_path / "base"
    write_tree(second.folder, {layout.config("train"): f"{text}create_new_adapter: true\n"})
    with pytest.raises(InputError, match="lies over another run's") as caught:
        locate("run:second@adapter", tmp_path)
    assert f"run:{second.id}" in caught.value.hint


def test_an_adapter_that_cannot_be_continued(continued: Run, tmp_path: Path) -> None:
    (tmp_path / "base" / "model.safetensors").write_text("other weights")
    with pytest.raises(InputError, match="'base' has changed since"):
        locate("run:first@adapter", tmp_path)
    write_json(continued.folder / layout.TRAINED / "adapter_config.json", {"peft_type": "OFT"})
    with pytest.raises(InputError, match="no LoRA adapter"):
        locate("run:first@adapter", tmp_path)
    continued.record["stages"]["train"] = {"status": "interrupted"}
    continued.save()
    with pytest.raises(MissingError, match="not been trained to the end"):
        locate("run:first@adapter", tmp_path)


def planned(folder: Path, run: Run, *options: str) -> dict[str, Any]:
    """Stage → step of a project that goes on from a run's adapter."""
    project = make_project(folder, Path(f"run:{run.folder}@adapter"))
    loaded = load_project(project / "spec.yaml", [f"train.{option}" for option in options])
    return {planned.step.stage: planned.step for planned in make_plan(loaded).steps}


def test_sft_goes_on_with_the_same_adapter(shipped_run: Run, tmp_path: Path) -> None:
    steps = planned(tmp_path, shipped_run)
    adapter, base = str(shipped_run.folder / "train"), shipped_run.record["lineage"]["base_model"]["name"]
    config = yaml.safe_load(steps["train"].files[layout.config("train")])
    assert (config["model_name_or_path"], config["adapter_name_or_path"]) == (base, adapter)
    assert "create_new_adapter" not in config
    loads = [yaml.safe_load(steps[name].files[layout.config(name)]) for name in ("predict-base", "merge")]
    assert [one["adapter_name_or_path"] for one in loads] == [adapter, "train"]


def test_dpo_learns_against_the_model_it_starts_from(shipped_run: Run, tmp_path: Path) -> None:
    adapter = str(shipped_run.folder / "train")
    values = _preference(planned(tmp_path, shipped_run, "stage=dpo"))
    assert values["reference"] == "base"
    assert values["models"]["base"]["adapter_name_or_path"] == adapter
    assert values["models"]["tuned"]["adapter_name_or_path"] == f"{adapter},train"
    one = _preference(planned(tmp_path, shipped_run, "stage=dpo", "create_new_adapter=false"))
    assert one["reference"] == "reference" and list(one["models"]["reference"]) == ["model_name_or_path"]
    assert one["models"]["tuned"]["adapter_name_or_path"] == "train"


def _preference(steps: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(steps["preference"].files["configs/preference.json"])
    return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("finetuning_type=full",), "'full' cannot go on from an adapter"),
        (("lora_rank=16",), "the adapter to go on with has 4, not 16"),
        (("stage=dpo", "quantization_bit=4"), "takes no second adapter"),
    ],
)
def test_what_an_adapter_does_not_allow(
    options: tuple[str, ...], message: str, shipped_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        planned(tmp_path, shipped_run, *options)


def test_a_second_adapter_has_no_gguf(shipped_run: Run, tmp_path: Path) -> None:
    project = make_project(tmp_path, Path(f"run:{shipped_run.folder}@adapter"))
    loaded = load_project(project / "spec.yaml", ["train.stage=dpo", "export.adapter=true"])
    with pytest.raises(InputError, match="its adapter lies over another run's"):
        make_plan(loaded)
