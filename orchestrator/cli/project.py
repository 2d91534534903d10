"""`init`, `schema`, `completion`: what a new project, an editor and a shell need."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from orchestrator.cli.common import say
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_text
from orchestrator.lib.render import PACKAGED


@click.command()
@click.argument("folder", default=".", metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--from", "source", metavar="PATH", type=click.Path(path_type=Path),
              help="Somebody's train.yaml, or the output_dir of a training: the spec says the same.")  # fmt: skip
def init(folder: Path, source: Path | None) -> None:
    """Write a project that runs: spec.yaml and its schema, a Makefile, a small dataset, .gitignore.

    Nothing is asked and nothing replaced.

    \b
    Example: orchestrator init my-model
             orchestrator init my-model --from saves/Qwen2.5-7B/lora/train_1
    """

    spec = taken_over(source, folder) if source else None
    for path in create(folder, spec):
        click.echo(path)
    where = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    say(f"next: {where}make check all", err=True)


SCHEMA = "spec.schema.json"
COPIED = {
    "spec.yaml": "templates/project/spec.yaml",
    "Makefile": "templates/project/Makefile",
    ".gitignore": "templates/project/gitignore",
    "datasets/news/train.json": "datasets/news/train.json",
    "datasets/news/eval.json": "datasets/news/eval.json",
    "datasets/news/README.md": "datasets/news/README.md",
}
"""File of the project → the file it is copied from, inside the installed package or beside it in a checkout."""


def taken_over(source: Path, folder: Path) -> str:
    """The spec that says what a LLaMA-Factory YAML or a training's folder says. Raises InputError for neither."""
    from orchestrator.models.saves import read_arguments, read_saves
    from orchestrator.spec.foreign import Foreign, spec_text

    name = slug(folder.resolve().name)
    if source.is_dir():
        saves = read_saves(source)
        files = [name for name in (saves.arguments_from, "adapter_config.json" if saves.adapter else "") if name]
        arguments = {**saves.adapter_arguments(), **saves.arguments}
        given = Foreign(arguments, " and ".join(f"{source}/{name}" for name in files) or str(source), saves.base)
    else:
        given = Foreign(read_arguments(source), str(source))
    return spec_text(given, name, Path())


def create(folder: Path, spec: str | None = None) -> list[Path]:
    """Write a project that runs, around `spec` where one is given, and return its files.

    Raises InputError rather than replace a file that is there.
    """
    texts = _texts()
    if spec is not None:
        texts = {**texts, "spec.yaml": "# yaml-language-server: $schema=./spec.schema.json\n" + spec}
    if there := [name for name in texts if (folder / name).exists()]:
        raise InputError(f"{folder} already has {', '.join(there)}", "Name a new folder.")
    try:
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise InputError(
            f"cannot write to {str(folder)!r}: {error.strerror}", "Name a folder you may write to."
        ) from None
    return [folder / name for name in texts]


def shipped_spec(name: str) -> str:
    """The spec of a new project, under another name: what it says of data is the caller's to change."""
    from orchestrator.spec.editing import edited

    text = _shipped(COPIED["spec.yaml"]).read_text(encoding="utf-8").partition("\n")[2]
    return edited(text, {"name": slug(name)})


def slug(name: str) -> str:
    """What a spec may be called after a folder or a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"


def _texts() -> Mapping[str, str]:
    from orchestrator.spec.reference import json_schema

    copies = {name: _shipped(source).read_text(encoding="utf-8") for name, source in COPIED.items()}
    copies["Makefile"] = copies["Makefile"].replace("@PYTHON@", sys.executable.replace("$", "$$"))
    return {**copies, SCHEMA: json.dumps(json_schema(), ensure_ascii=False, indent=1) + "\n"}


def _shipped(name: str) -> Path:
    """A shipped file; the folders that hold templates/ hold datasets/ as well."""
    return next(path for path in (folder.parent / name for folder in PACKAGED) if path.is_file())


@click.command()
@click.option("--markdown", is_flag=True, help="Print the tables of the spec reference instead.")
def schema(markdown: bool) -> None:
    """Print the JSON schema of spec.yaml, so that an editor completes and checks its keys.

    \b
    orchestrator schema > spec.schema.json
    and as the first line of spec.yaml:
    # yaml-language-server: $schema=spec.schema.json
    """
    from orchestrator.spec.reference import json_schema, reference

    click.echo(reference() if markdown else json.dumps(json_schema(), ensure_ascii=False, indent=2))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options and file names.

    \b
    Example: orchestrator completion bash > ~/.orchestrator-complete.sh
    then add to ~/.bashrc (zsh: ~/.zshrc): source ~/.orchestrator-complete.sh
    fish: orchestrator completion fish > ~/.config/fish/completions/orchestrator.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # one of the three that click brings
    tool = context.find_root()
    script = kind(tool.command, {}, "orchestrator", "_ORCHESTRATOR_COMPLETE")
    click.echo(script.source())
