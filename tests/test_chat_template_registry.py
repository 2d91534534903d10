"""The templates of the installed LLaMA-Factory, as its source has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.chat_template.registry import Definition, definition, template_names
from orchestrator.chat_template.source import Mark, template_for_model
from orchestrator.chat_template.turns import (
    SpecialTokens,
    converter_adds_bos,
    special_tokens,
    starts_with_bos,
    stop_words,
)
from orchestrator.lib.errors import InputError, MissingError


def test_a_definition_has_the_defaults_of_register_template() -> None:
    assert definition("deepseekr1") == Definition(
        name="deepseekr1",
        user=("<｜User｜>", Mark.CONTENT, "<｜Assistant｜>"),
        assistant=(Mark.CONTENT, Mark.EOS),
        system=(Mark.CONTENT,),
        prefix=(Mark.BOS,),
        default_system="",
        stop_words=(),
        thought_words=("<think>\n", "\n</think>\n\n"),
        kind="ReasoningTemplate",
        efficient_eos=False,
        replace_eos=False,
    )


def test_every_template_is_read_and_has_one_place_for_each_text() -> None:
    names = template_names()
    assert {"smollm2", "qwen3", "llama3", "gemma3", "openchat-3.6"} <= set(names)
    for chosen in map(definition, names):
        assert [slots.count(Mark.CONTENT) for slots in (chosen.user, chosen.assistant, chosen.system)] == [1, 1, 1]


def test_an_unknown_template_is_answered_with_close_ones() -> None:
    with pytest.raises(InputError, match=r"'qwen33'; closest: qwen3"):
        definition("qwen33")


@pytest.mark.parametrize(
    ("repository", "template"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen"),
        ("somebody/qwen2.5-0.5b-instruct", "qwen"),
        ("/models/DeepSeek-R1-Distill-Qwen-1.5B/", "deepseekr1"),
        ("Qwen/Qwen2.5-0.5B", None),
        ("nobody/knows-this", None),
    ],
)
def test_template_of_a_model(repository: str, template: str | None) -> None:
    assert template_for_model(repository) == template


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        ("qwen", SpecialTokens(None, "<|endoftext|>"), ["<|im_end|>"]),
        ("llama3", SpecialTokens("<s>", "</s>"), ["<|eot_id|>", "<|eom_id|>"]),
        ("gemma2", SpecialTokens("<bos>", "<eos>"), ["<eos>", "<end_of_turn>"]),
        ("smollm2", SpecialTokens(None, None), ["<|endoftext|>", "<|im_end|>"]),
    ],
)
def test_stop_words_begin_with_the_eos_that_training_uses(name: str, tokens: SpecialTokens, words: list[str]) -> None:
    assert stop_words(definition(name), tokens) == words


@pytest.mark.parametrize(
    ("name", "starts"),
    [("gemma", True), ("llama2", True), ("seed_coder", True), ("seed_oss", True), ("chatml", False), ("vicuna", False)],
)
def test_which_templates_start_with_bos(name: str, starts: bool) -> None:
    assert starts_with_bos(definition(name), SpecialTokens("<s>", "</s>")) is starts
    assert not starts_with_bos(definition(name), SpecialTokens(None, "</s>"))


BOS_FIRST = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}


@pytest.mark.parametrize(
    ("config", "tokenizer", "adds"),
    [
        ({"add_bos_token": True, "bos_token": {"content": "<s>"}}, {}, True),
        ({"add_bos_token": False}, {"post_processor": BOS_FIRST}, False),
        ({}, {"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, BOS_FIRST]}}, True),
        ({}, {"post_processor": {"type": "ByteLevel"}, "model": {"byte_fallback": False}}, False),
        ({}, {"post_processor": None, "model": {"byte_fallback": True}}, True),
    ],
)
def test_whether_the_converter_makes_llama_cpp_add_bos(
    tmp_path: Path, config: dict[str, object], tokenizer: dict[str, object], adds: bool
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", **config}))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert converter_adds_bos(tmp_path) is adds
    assert special_tokens(tmp_path) == SpecialTokens("<s>", None)


def test_a_folder_without_a_tokenizer_is_missing_something(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="tokenizer_config"):
        special_tokens(tmp_path)
