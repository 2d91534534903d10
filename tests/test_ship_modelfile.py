"""A Modelfile read back is what was rendered; a bundle holds what it names; adapters that a GGUF cannot hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import write_text
from orchestrator.lib.render import Renderer
from orchestrator.models.lora_gguf import plain_alpha
from orchestrator.serving import bundle
from orchestrator.serving.bundle import Modelfile
from orchestrator.stages.adapter import over_base, unfit_adapter, unfit_base, unfit_training
from orchestrator.stages.modelfile import Modelfile as ModelfileStage
from tests.test_stages import context_of

VALUES: list[dict[str, Any]] = [
    {"system": None, "stop": [], "parameters": {}},
    {"system": "你是“助手”。\nFROM here on:\nPARAMETER x", "stop": ["<|im_end|>", "<｜end｜>"], "parameters": {}},
    {"system": 'say "no" once', "stop": ["\n\n"], "parameters": {"temperature": 0, "top_p": 0.9, "num_ctx": 4096}},
    {"system": None, "stop": ['a "b'], "parameters": {"seed": 1, "penalize_newline": True}},
]
TEMPLATE = '{{ if $.System }}<|system|>{{ $.System }}{{ end }}{{ range .Messages }}{{ .Content }}{{ "\\n" }}{{ end }}'


@pytest.mark.parametrize("values", VALUES)
def test_what_is_rendered_is_read_back(tmp_path: Path, values: dict[str, Any]) -> None:
    text = Renderer(tmp_path)("Modelfile.j2", name="news", gguf="a b.gguf", ollama_template=TEMPLATE, **values)
    parameters = values["parameters"] | ({"stop": values["stop"]} if values["stop"] else {})
    expected = Modelfile("./a b.gguf", "", TEMPLATE, values["system"], parameters)
    assert bundle.parse(text) == expected
    with_adapter = bundle.parse(over_base(text, "base.gguf", "lora.gguf"))
    expected.model, expected.adapter = "./base.gguf", "./lora.gguf"
    assert with_adapter == expected


def test_a_template_for_tools_of_the_projects_own_is_part_of_the_result(tmp_path: Path) -> None:
    context = replace(context_of("spec.yaml"), render=Renderer(tmp_path))
    [before] = ModelfileStage.plan(context)
    write_text(tmp_path / "templates/Modelfile.tools.j2", "FROM {{ gguf }}\n")
    [after] = ModelfileStage.plan(context)
    assert before.inputs.items() < after.inputs.items() and set(after.inputs) == {"Modelfile.j2", "Modelfile.tools.j2"}


def test_what_cannot_be_pushed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MESSAGE"):
        bundle.parse("FROM ./a.gguf\nMESSAGE user hi\n")
    with pytest.raises(MissingError, match="Modelfile"):
        bundle.read(tmp_path / "Modelfile")


LORA = {"finetuning_type": "lora"}


def test_an_adapter_over_multi_head_latent_attention_stays_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3", "kv_lora_rank": 512}')
    assert "multi-head latent attention" in str(unfit_base(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert unfit_base(tmp_path) is None


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (LORA, None),
        (LORA | {"use_rslora": True}, None),
        (LORA | {"pissa_init": True, "pissa_convert": True}, None),
        (LORA | {"pissa_init": True}, "pissa_convert"),
        (LORA | {"use_dora": True}, "magnitudes"),
        (LORA | {"additional_target": "embed_tokens"}, "whole modules"),
        (LORA | {"resize_vocab": True}, "whole modules"),
        ({"finetuning_type": "full"}, "'full' makes no LoRA adapter"),
        ({"finetuning_type": "oft"}, "'oft' makes no LoRA adapter"),
    ],
)
def test_which_training_fits_a_gguf(training: dict[str, Any], reason: str | None) -> None:
    found = unfit_training(training)
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"modules_to_save": None, "bias": "none", "alpha_pattern": {}}, None),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"alpha_pattern": {"q_proj": 32}}, "lora_alpha"),
        ({"bias": "all"}, "biases"),
    ],
)
def test_which_adapter_fits_a_gguf(config: dict[str, Any], reason: str | None) -> None:
    found = unfit_adapter(config)
    assert found is None if reason is None else found is not None and reason in found


def test_rank_stabilised_scaling_is_kept() -> None:
    assert plain_alpha({"lora_alpha": 16, "r": 8}) == 16
    scale = plain_alpha({"lora_alpha": 16, "r": 64, "use_rslora": True}) / 64
    assert scale == 16 / 64**0.5
