"""llama.cpp's own server as an engine: what it renders, and what it takes a template for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.chat_template import llama_server
from orchestrator.chat_template.check import Engines, check
from orchestrator.chat_template.jinja import jinja_template, render_messages
from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.evaluation.parity import same_texts, server_sentence
from orchestrator.lib.errors import StageError

TOKENS = SpecialTokens(bos="<s>", eos="</s>")
ASKED = {"role": "user", "content": '他说："{{ 你好 }}"\\n\u2028What is "it"? 🙂'}
THOUGHT = {"role": "assistant", "content": "<think>\n嗯\n</think>\n\n是。"}


@pytest.fixture(scope="module")
def server() -> str:
    found = llama_server.find()
    if found is None:
        pytest.skip("no llama-server: pip install xllamacpp")
    return found


def rendered(server: str, name: str, thinking: bool, said: bool | None) -> tuple[str, str]:
    """By the server, and as a model trained in this mode, or asked not to think, expects it."""
    served = jinja_template(definition(name), TOKENS, thinking)
    expected = jinja_template(definition(name), TOKENS, thinking and said is not False)
    messages = [ASKED, THOUGHT, ASKED]
    (text,) = llama_server.render(server, [llama_server.Rendering(served, messages, said)], TOKENS)
    return text, render_messages(expected, messages, TOKENS).removeprefix("<s>")


@pytest.mark.parametrize(("thinking", "said"), [(True, None), (True, False), (False, None), (False, True)])
def test_it_asks_a_model_to_think_as_it_was_trained(server: str, thinking: bool, said: bool | None) -> None:
    got, expected = rendered(server, "deepseekr1", thinking, said)
    assert got == expected


def test_templates_of_several_makers_are_equal_in_all_engines(tiny_model: Path, server: str) -> None:
    results = check(["qwen3", "llama3", "mistral", "gemma"], tiny_model, Engines(server=server), reference=True)
    assert [(result.template, result.mismatch) for result in results if not result.passed] == []
    assert all(result.cases >= 16 for result in results)


@pytest.mark.nightly
def test_every_template_is_equal_in_all_engines(tiny_model: Path, server: str) -> None:
    from orchestrator.chat_template.registry import template_names

    results = check(template_names(), tiny_model, Engines.found(), reference=True)
    assert [(result.template, result.mismatch) for result in results if not result.passed] == []


def test_what_is_trained_not_to_think_does_not_look_as_if_it_could() -> None:
    for name in ("qwen3", "deepseekr1", "glm4_moe"):
        text = jinja_template(definition(name), TOKENS, thinking=False)
        assert "<think>" not in text and "</think>" not in text
        assert "<think>" in jinja_template(definition(name), TOKENS, thinking=True)


def test_a_template_that_it_cannot_read_is_named(server: str) -> None:
    with pytest.raises(StageError, match="ended at conversation 1 of 1"):
        llama_server.render(server, [llama_server.Rendering("{% if %}", [ASKED])], TOKENS)


def test_the_first_other_character_is_told() -> None:
    rows = [{"id": "1", "text": "<s>问：你好"}, {"id": "2", "text": "<s>问：再见"}]
    found = same_texts(rows, ["问：你好", "问:再见"], "<s>")
    assert found["equal_texts"] == 1
    said = server_sentence("gguf-f16", {"llama_server": found})
    assert said is not None and "1 of 2 prompts" in said and "row 2, character 2: ':再见', in training '：再见'" in said
    assert server_sentence("gguf-f16", {}) is None
