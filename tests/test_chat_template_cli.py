"""`orchestrator template`, as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.chat_template.check import Result
from orchestrator.chat_template.encode import load_tokenizer
from orchestrator.cli.template import template
from orchestrator.lib.errors import GateError, InputError
from tests.training_prompts import training_prompt_ids

CONVERSATION = [{"role": "system", "content": "只说一个词。"}, {"role": "user", "content": 'Is "{{ x }}" new?\n🙂'}]


@pytest.fixture
def call(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """(standard output, standard error) of a command in a project on the tiny model."""
    monkeypatch.chdir(project)

    def run(*arguments: str) -> tuple[str, str]:
        done = CliRunner().invoke(template, arguments, catch_exceptions=False, standalone_mode=False)
        return done.stdout, done.stderr

    return run


def test_show_prints_just_the_template(call: Callable[..., tuple[str, str]]) -> None:
    ollama, _ = call("show", "qwen3", "--ollama")
    assert ollama.startswith("{{ if $.System }}<|im_start|>system\n")
    assert ollama.endswith("{{ end }}")
    jinja, _ = call("show", "qwen3", "--jinja")
    assert (jinja, "") == call("show", "qwen3")


def test_show_messages_prints_the_prompt_of_training(
    call: Callable[..., tuple[str, str]], project: Path, tiny_model: Path
) -> None:
    (project / "chat.json").write_text(json.dumps({"messages": CONVERSATION}), encoding="utf-8")
    prompt, ids = call("show", "qwen3", "--messages", "chat.json", "-v")
    [trained] = training_prompt_ids("qwen3", tiny_model, [CONVERSATION], thinking=False)
    assert json.loads(ids) == trained
    assert load_tokenizer(tiny_model).decode(trained) == prompt


@pytest.mark.parametrize(("thinking", "end"), [("on", "assistant\n"), ("off", "<think>\n\n</think>\n\n")])
def test_show_follows_the_thinking_mode(
    call: Callable[..., tuple[str, str]], project: Path, thinking: str, end: str
) -> None:
    (project / "chat.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    assert call("show", "qwen3", "--messages", "chat.json", "--thinking", thinking)[0].endswith(end)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "empty"), "'empty' is not served"),
        (("show", "smolm2"), "closest: smollm2"),
        (("show", "smollm2", "--messages", "spec.yaml"), "is not JSON"),
        (("show", "smollm2", "--messages", "data/train.json"), "holds no conversation"),
    ],
)
def test_what_show_refuses(call: Callable[..., tuple[str, str]], arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(*arguments)


def test_check_without_names_takes_the_template_of_the_spec(call: Callable[..., tuple[str, str]]) -> None:
    answer = json.loads(call("check", "--json")[0])
    assert [(row["template"], row["passed"]) for row in answer["templates"]] == [("smollm2", True)]
    assert [(row["template"], row["passed"], row["cases"] > 8) for row in answer["with_tools"]] == [
        ("smollm2", True, True)
    ]


def test_check_names_what_is_not_served_as_trained(
    call: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [Result("qwen3", True, 3), Result("qwen3", False, 3, mismatch="Jinja, user: token 3 on: '[INST]'")]
    monkeypatch.setattr("orchestrator.chat_template.check.check", lambda *_: results)
    with pytest.raises(GateError, match="not served as trained: qwen3") as failed:
        call("check", "qwen3")
    assert failed.value.exit_code == 5


def test_calls_that_servers_cannot_read_are_told(
    call: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [Result("glm4", None, 9, unread="reads no text", tools=True)]
    for name, results in (("check", []), ("check_tools", told)):
        monkeypatch.setattr(f"orchestrator.chat_template.check.{name}", lambda *_, of=results: of)
    assert "yes, but reads no text" in call("check", "glm4")[0]


def test_a_refused_template_fails_only_when_it_was_asked_for(
    call: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.chat_template.check.check", lambda *_: [Result("empty", None, 0, refused="why")])
    no_tools = [Result("smollm2", None, 0, refused="no tools", tools=True)]
    monkeypatch.setattr("orchestrator.chat_template.check.check_tools", lambda *_: no_tools)
    assert "refused: why" in call("check", "--all")[0]
    with pytest.raises(GateError, match=r"not served as trained: empty$"):
        call("check", "empty", "smollm2")


def test_show_writes_tools_and_calls_as_training_does(
    call: Callable[..., tuple[str, str]], project: Path, tiny_model: Path
) -> None:
    called = {"function": {"name": "now", "arguments": '{"zone": "北京"}'}}
    messages = [*CONVERSATION, {"role": "assistant", "tool_calls": [called]}, {"role": "tool", "content": "12:00"}]
    asked = {"messages": messages, "tools": [{"name": "now", "parameters": {"properties": {"zone": {"default": "x"}}}}]}
    (project / "chat.json").write_text(json.dumps(asked), encoding="utf-8")
    prompt, ids = call("show", "qwen3", "--messages", "chat.json", "-v")
    assert load_tokenizer(tiny_model).decode(json.loads(ids)) == prompt
    assert '"properties": {"zone": {}}' in prompt
    assert '<tool_call>\n{"name": "now", "arguments": {"zone": "北京"}}\n</tool_call><|im_end|>' in prompt
    assert "message['tool_calls']" in call("show", "qwen3", "--tools")[0]
    assert "tool" not in call("show", "qwen3")[0]
    with pytest.raises(InputError, match="no TEMPLATE of Ollama's writes tools"):
        call("show", "qwen3", "--tools", "--ollama")
