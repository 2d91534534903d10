"""What the template stage changes in the merged model's tokenizer files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat_template.registry import definition
from orchestrator.lib.files import read_json
from orchestrator.stages import template

BOS_FIRST = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}


@pytest.mark.parametrize(
    ("name", "adds", "left"),
    [
        ("phi", False, None),  # trains without BOS: the converter would believe the post-processor, not the setting
        ("phi", True, None),
        ("mistral", True, BOS_FIRST),
    ],
)
def test_a_bos_that_training_had_not_is_added_by_nobody(
    name: str, adds: bool, left: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": adds}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {}, "post_processor": BOS_FIRST}))
    monkeypatch.setattr(template, "MERGED", tmp_path)
    template._leave_bos_to_training(definition(name))
    assert read_json(tmp_path / "tokenizer.json")["post_processor"] == left
    assert read_json(tmp_path / "tokenizer_config.json")["add_bos_token"] is (name == "mistral")
