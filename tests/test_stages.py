"""What the shipped specs render to, compared whole; `UPDATE_GOLDEN=1 pytest tests/test_stages.py` writes it anew."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.turns import SpecialTokens, stop_words
from orchestrator.lib.errors import InputError
from orchestrator.lib.render import Renderer
from orchestrator.lib.step import Step
from orchestrator.pipeline.plan import PACKAGES, resolve_template
from orchestrator.spec.load import load_project
from orchestrator.stages import chain
from orchestrator.stages.base import Context
from orchestrator.stages.convert import source_type

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
SPECS = ("spec.yaml", "specs/news-zh.yaml", "specs/news-deepseek-r1-7b.yaml")


BASES = ("predict-base", "predict-base-prompted")


def context_of(name: str, *overrides: str) -> Context:
    loaded = load_project(ROOT / name, overrides)
    return Context(
        spec=loaded.spec,
        project=ROOT,
        base_path=Path("/models/base"),
        base_identity="base-identity",
        template=resolve_template(loaded.spec, loaded.runs_dir),
        data_hashes={"data": "0" * 64},
        versions=dict.fromkeys((*PACKAGES, "llama.cpp"), "1"),
        converter=Path("/llama.cpp"),
        render=Renderer(ROOT),
    )


def steps_of(name: str, *overrides: str) -> dict[str, Step]:
    return {step.stage: step for step in chain(context_of(name, *overrides))}


def compare(name: str, text: str) -> None:
    text = text.replace(sys.executable, "PYTHON").replace(str(ROOT), "PROJECT")
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SPECS)
def test_rendered_configs(name: str) -> None:
    parts = []
    for step in steps_of(name).values():
        parts.append(f"===== {step.stage}: {' '.join(step.argv)}\n")
        parts += [f"--- {path}\n{text.rstrip()}\n" for path, text in step.files.items()]
    compare(f"{Path(name).stem}.txt", "".join(parts))


def test_the_7b_recipe_is_served_with_deepseeks_own_words() -> None:
    context = context_of("specs/news-deepseek-r1-7b.yaml")
    tokens = SpecialTokens(bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>")
    shape, ollama = definition(context.template), context.spec.export.ollama
    text = context.render(
        "Modelfile.j2",
        name=context.spec.name,
        gguf="news-deepseek-r1-7b-q4_k_m.gguf",
        ollama_template=ollama_template(shape, tokens, False, bos_added_by_runtime=True),
        system=ollama.system,
        stop=stop_words(shape, tokens),
        parameters=ollama.parameters,
    )
    assert "<｜User｜>{{ .Content }}<｜Assistant｜>" in text and "<|im_start|>" not in text
    assert "<think>\n\n</think>\n\n" in text
    compare("Modelfile.news-deepseek-r1-7b", text)


@pytest.mark.parametrize(
    ("kinds", "source"),
    [
        (("f16",), "f16"),
        (("q8_0",), "q8_0"),
        (("q4_k_m",), "f16"),
        (("f16", "q8_0", "q4_k_m"), "f16"),
        (("bf16", "q4_k_m"), "bf16"),
        (("f32", "q8_0"), "f32"),
    ],
)
def test_one_conversion_feeds_all(kinds: tuple[str, ...], source: str) -> None:
    assert source_type(kinds) == source
    stages = steps_of("spec.yaml", f"export.gguf=[{', '.join(kinds)}]")
    quantised = {stage.removeprefix("quantise-") for stage in stages if stage.startswith("quantise")}
    assert quantised == set(kinds) - {source}


@pytest.mark.parametrize("name", SPECS)
def test_every_step_comes_after_those_it_needs(name: str) -> None:
    seen: set[str] = set()
    for stage, step in steps_of(name).items():
        assert set(step.needs) <= seen
        seen.add(stage)


@pytest.mark.parametrize("name", SPECS)
def test_what_a_gguf_will_read_is_there_when_it_is_asked(name: str) -> None:
    steps = steps_of(name)
    for kind in [stage.removeprefix("ask-") for stage in steps if stage.startswith("ask-")]:
        asked, read = steps[f"ask-{kind}"], steps[f"diverge-{kind}"]
        assert set(read.needs) == {*asked.after, asked.needs[1]}
        sure = steps["confidence"].files if "confidence" in steps else {}
        assert asked.hints == {**read.files, **sure} and read.after == (asked.stage,)


def test_divergence_is_left_out_where_nobody_asks_for_it() -> None:
    plain = steps_of("spec.yaml", "evaluate.divergence=false")
    assert set(steps_of("spec.yaml")) - set(plain) == {
        "read-tuned",
        *(f"diverge-{of}" for of in ("f16", "q8_0", "q4_k_m")),
    }
    assert not plain["ask-f16"].hints and "divergence" not in plain["judge"].files["configs/judge.json"]
    limited = steps_of("spec.yaml", "evaluate.divergence=false", "export.gate.max_divergence=0.1")
    assert set(limited) == set(steps_of("spec.yaml"))


@pytest.mark.parametrize("name", SPECS)
def test_no_two_steps_own_the_same_output(name: str) -> None:
    owned = [path for step in steps_of(name).values() for path in (*step.expects, *step.files)]
    assert len(owned) - len(set(owned)) <= 2  # two dataset_info.json are written by the steps that they are expected of


@pytest.mark.parametrize(
    ("artifacts", "asking"),
    [
        ("[base, tuned, gguf-*]", {*BASES, "predict-tuned", "ask-f16", "ask-q8_0", "ask-q4_k_m"}),
        ("[tuned, gguf-q4_k_m]", {"predict-tuned", "ask-q4_k_m"}),
        ("[gguf-q*]", {"predict-tuned", "ask-q8_0", "ask-q4_k_m"}),
        ("[base]", {*BASES, "predict-tuned"}),
    ],
)
def test_only_the_artifacts_asked_for_answer(artifacts: str, asking: set[str]) -> None:
    stages = steps_of("spec.yaml", f"evaluate.artifacts={artifacts}")
    assert {stage for stage in stages if stage.startswith(("predict", "ask"))} == asking
    assert ("judge" in stages) == any(stage.startswith("ask") for stage in asking)


@pytest.mark.parametrize(
    ("overrides", "template", "tool_format"),
    [
        (("evaluate.task=tools",), "smollm2+qwen", "qwen"),
        (("evaluate.task=tools", "model.template=smollm2"), "smollm2", None),
        (("evaluate.task=tools", "data.accept=[calls_not_read]"), "smollm2", None),
        (("evaluate.task=tools", "model.template=qwen"), "qwen", None),
        (("model.template=gemma+mistral",), "gemma+mistral", "mistral"),
        ((), "smollm2", None),
    ],
)
def test_a_model_that_is_to_call_tools_does_so_in_a_form_that_servers_read(
    overrides: tuple[str, ...], template: str, tool_format: str | None
) -> None:
    assert context_of("spec.yaml", *overrides).template == template
    steps = steps_of("spec.yaml", *overrides)
    said = [
        yaml.safe_load(text)
        for name in ("train", "predict-base", "merge")
        for path, text in steps[name].files.items()
        if path == f"configs/{name}.yaml"
    ]
    told = {(values["template"], values.get("tool_format")) for values in said}
    assert (len(said), told) == (3, {(template.partition("+")[0], tool_format)})
    assert json.loads(steps["prepare"].files["configs/prepare.json"])["template"] == template


def test_a_file_of_a_wanted_size_is_made_and_proven_like_any_other() -> None:
    plain, steps = steps_of("spec.yaml"), steps_of("spec.yaml", "export.size=90MB")
    mixed = steps["quantise-mixed"]
    assert json.loads(mixed.files["configs/quantise-mixed.json"])["budget"] == 90_000_000
    assert mixed.needs == ("prepare", "convert", "importance")
    assert set(steps) - set(plain) == {"quantise-mixed", "ask-mixed", "diverge-mixed"}
    assert steps["ask-mixed"].needs == ("prepare", "quantise-mixed")
    judge = json.loads(steps["judge"].files["configs/judge.json"])
    assert judge["held_against"]["gguf-mixed"] == "gguf-f16" and "gguf-mixed" in judge["files"]
    only = steps_of("spec.yaml", "export.size=1.5GiB", "export.gguf=[q8_0]", "export.importance=off")
    assert json.loads(only["quantise-mixed"].files["configs/quantise-mixed.json"])["source"] == "export/news-f16.gguf"
    with pytest.raises(InputError, match=r"export.size: cannot be the text 'small': Also make a GGUF"):
        steps_of("spec.yaml", "export.size=small")
