"""diagnose: good in LLaMA-Factory, rubbish in Ollama: which part is wrong, and at which token."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import json_option, print_json, say, secret
from orchestrator.lib.errors import GateError
from orchestrator.lib.files import write_text
from orchestrator.lib.language import localised

if TYPE_CHECKING:
    from orchestrator.serving.diagnose.diagnosis import Diagnosis
    from orchestrator.serving.http import Endpoint

file_type = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("saves", metavar="SAVES_FOLDER", type=click.Path(path_type=Path))
@click.option("--ollama", metavar="NAME", help="The model as this machine's Ollama, or OLLAMA_HOST, has it.")
@click.option("--gguf", type=file_type, metavar="FILE", help="The file that is served.")
@click.option("--endpoint", metavar="URL", help="The server that answers: llama.cpp's, or any OpenAI-compatible one.")
@click.option("--model", help="Its model [the first it lists].")
@click.option("--api-key-env", "key_variable", metavar="VAR", help="Holds the server's key.")
@click.option("--data", type=file_type, metavar="FILE", help="Rows with right answers, to be asked as well.")
@click.option("--config", type=file_type, metavar="FILE", help="The training's YAML [one in the folder].")
@click.option("--template", metavar="NAME", help="The template of training [as the YAML says].")
@click.option("-o", "--output", type=file_type, help="Where the corrected Modelfile goes [NAME.corrected.Modelfile].")
@json_option
def diagnose(saves: Path, as_json: bool, output: Path | None, **options: Any) -> None:
    """Find out why a model answers well in LLaMA-Factory and badly where it is served.

    Nothing is trained and nothing changed. SAVES_FOLDER is the output_dir of anybody's training; exit code 5 says that
    something is served differently from how it was trained.

    Example: orchestrator diagnose saves/qwen/lora/sft --ollama my-model --data rows.json
    """
    targets = [name for name in ("ollama", "gguf", "endpoint") if options[name]]
    if len(targets) != 1:
        raise click.UsageError("say what is served: one of --ollama NAME, --gguf FILE and --endpoint URL")
    from orchestrator.models.saves import read_saves
    from orchestrator.serving.diagnose import probes, trained
    from orchestrator.serving.diagnose.diagnosis import diagnose as compare

    rows, shared = probes.read_rows(options["data"]) if options["data"] else ([], None)
    known = trained.read(read_saves(saves, options["config"]), options["template"], shared)
    if not as_json:
        say(_heading(known), err=True)
    found = compare(known, options["gguf"] or _server(options), rows)
    written = _write(found, output or Path(f"{_file_name(found)}.corrected.Modelfile")) if found.modelfile else None
    print_json({**found.to_json(), "modelfile": written and str(written)}) if as_json else _print(found, written)
    if not found.sound:
        wrong = [finding.kind for finding in found.findings if finding.wrong]
        raise GateError(f"{found.shipped.name} is not served as it was trained: {', '.join(dict.fromkeys(wrong))}")


def _server(options: dict[str, Any]) -> Endpoint:
    from orchestrator.serving import ollama_server
    from orchestrator.serving.endpoint import connect

    if options["ollama"]:
        return ollama_server.connect().endpoint(options["ollama"])
    return connect(options["endpoint"], options["model"], secret(options["key_variable"]))


def _heading(known: Any) -> str:
    saves = known.saves
    what = "adapter" if saves.adapter else "model"
    thinks = {True: ", thinking on", False: ", thinking off", None: ""}[known.thinking]
    over = f" over {saves.base}" if saves.base else ""
    remark = f"\n{saves.remark}" if saves.remark else ""
    return f"trained: {what}{over}; template {known.template}{thinks}; system text {known.system.source}{remark}"


def _print(found: Diagnosis, written: Path | None) -> None:
    from orchestrator.serving.diagnose.finding import TITLES

    shipped = found.shipped
    size = f", {shipped.quantisation}" if shipped.quantisation else ""
    say(f"served:  {shipped.name}{size}; prompts made by {shipped.maker}")
    for finding in found.findings:
        word, colour = ("wrong", "red") if finding.wrong else ("note", "yellow")
        mark = click.style(localised(word), fg=colour)
        say(f"{mark}: {localised(TITLES[finding.kind])}: {finding.sentence}\n  → {finding.cure}")
    if found.sound:
        say("nothing is wrong with what was looked at")
    if found.answers:
        say(f"answers: {found.answers.sentence()}")
    for text in found.unseen:
        say(f"not looked at: {text}")
    if written:
        name = _plain(written.name.removesuffix(".Modelfile"), r"[^a-zA-Z0-9_-]+")  # what Ollama takes for a name
        say(f"corrected Modelfile: {written}; ollama create {name} -f {shlex.quote(str(written))}")


def _write(found: Diagnosis, target: Path) -> Path | None:
    from orchestrator.serving.diagnose.finding import IN_MODELFILE

    cured = [one for one in found.findings if one.kind in IN_MODELFILE or one.kind == "bos"]
    if not cured:
        return None
    write_text(target, found.modelfile or "")
    return target


def _file_name(found: Diagnosis) -> str:
    shipped = found.shipped
    return _plain(shipped.endpoint.model if shipped.endpoint else Path(shipped.name).stem, r"[^\w.-]+")


def _plain(name: str, others: str) -> str:
    return re.sub(others, "-", name).strip("-") or "model"
