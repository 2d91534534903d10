"""run:ID as a base model."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import layout, models, records
from orchestrator.errors import InputError, MissingError
from orchestrator.files import HashCache, write_json
from orchestrator.records import Run
from tests.conftest import write_tree


@pytest.fixture
def earlier(tmp_path: Path) -> Run:
    """A run with a merged model, in the project's runs/."""
    run = records.create(tmp_path / "runs", "first", stages={"template": {"status": "completed"}})
    write_tree(run.folder / layout.MERGED, {"config.json": "{}", "model.safetensors": "weights"})
    write_json(run.folder / layout.SERVING, {"template": "qwen3"})
    return run


def locate(base: str, project: Path, runs_dir: Path | None = None) -> models.Base:
    return models.locate(base, project, HashCache(project / "hashes.json"), runs_dir)


def test_a_run_is_found_by_id_by_part_and_by_folder(earlier: Run, tmp_path: Path) -> None:
    merged = (earlier.folder / layout.MERGED).resolve()
    for name in (earlier.id, "first", str(earlier.folder)):
        assert locate(f"run:{name}", tmp_path).path == merged
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    assert locate(f"run:{earlier.id}", elsewhere, tmp_path / "runs").path == merged
    assert models.template_of(f"run:{earlier.id}", tmp_path / "runs") == "qwen3"


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
