"""Models that the installed LLaMA-Factory cannot load are named before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.models import loadable


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "qwen3", "gemma3_text", "mistral", "deepseek_v3", "youtu", "no-such"]
)
def test_ordinary_models_lack_nothing(kind: str) -> None:
    assert list(loadable.lacking(kind)) == []


def test_what_is_imported_for_one_kind_of_model_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llamafactory/model/model_utils"
    package.mkdir(parents=True)
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers/hub.py").write_text("def there(): ...\n")
    (package / "attention.py").write_text(
        'def configure(config):\n    if getattr(config, "model_type", None) == "odd":\n'
        "        from transformers.hub import gone, there\n"
        '    elif getattr(config, "model_type", None) == "even":\n        from transformers.hub import there\n'
    )
    monkeypatch.setattr(loadable, "package_folder", lambda name: tmp_path / name)
    assert list(loadable.lacking("odd")) == ["transformers.hub.gone"]
    assert list(loadable.lacking("even")) == []


def test_the_refusal_names_whose_fault_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    monkeypatch.setattr(loadable, "lacking", lambda kind: iter(["transformers.hub.gone"]))
    with pytest.raises(InputError, match=r"cannot load 'hf:x/y' \(gpt_oss\): it asks transformers for") as refused:
        loadable.require_loadable(tmp_path, "hf:x/y")
    assert "LLaMA-Factory's" in str(refused.value.hint)
