"""data: import, check, clean, stats, split, fetch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    json_option,
    print_json,
    say,
    spec_argument,
    stderr_console,
    stdout_console,
    together,
)
from orchestrator.cli.found import drawn, show_findings, show_import, show_stats
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json, write_text
from orchestrator.lib.language import localised
from orchestrator.lib.layout import project_of, stage_config
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.lib.words import counted

if TYPE_CHECKING:
    from orchestrator.data.assemble import Wanted
    from orchestrator.data.checks import Finding
    from orchestrator.data.checks.tokens import TokenCounter
    from orchestrator.data.import_ import Imported
    from orchestrator.spec.load import Project

_SHOWN = 10  # changes of `clean` that are printed
file_argument = click.argument("file", type=click.Path(path_type=Path))
kind_option = click.option(
    "--kind",
    type=click.Choice(list(TRAINING_KINDS)),
    default="sft",
    show_default=True,
    help="What the rows are for.",
)
import_options = together(
    file_argument,
    click.option("--out", type=click.Path(path_type=Path), help="Folder to write [datasets/NAME OF FILE]."),
    click.option("--eval-fraction", type=click.FloatRange(0, 1, max_open=True), default=0.25, show_default=True),
    click.option("--group", metavar="COLUMN", help="Rows of one value stay on one side, such as one customer's."),
    click.option("--seed", type=int, default=42, show_default=True, help="Decides the split."),
    kind_option,
    click.option("--overwrite", is_flag=True, help="Replace a data set that is there."),
    click.option(
        "--write-spec",
        "spec",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write it into this spec, comments kept; a new one where there is none.",
    ),
    json_option,
)


@click.group()
def data() -> None:
    """Import, check, clean and split data."""


@data.command("import")
@import_options
@click.option("--prompt", metavar="TEXT", help="The question, with columns in it: 'News category: {title}'.")
@click.option("--label", metavar="COLUMN", help="The column that holds the answer.")
@click.option("--system", default="", help="System text for rows that bring none.")
def import_(prompt: str | None, label: str | None, system: str, **options: Any) -> None:
    """Turn a CSV, TSV, Excel, JSON, JSONL or Parquet file into a data set with held-out rows.

    Example: orchestrator data import news.csv --prompt "新闻分类：{title}" --label category
    """
    if bool(prompt) != bool(label) and options["kind"] == "sft":
        raise click.UsageError("--prompt and --label go together")
    columns = {name: value for name, value in (("prompt", prompt), ("response", label)) if value}
    _import(options, columns or None, system)


@data.command()
@import_options
def split(**options: Any) -> None:
    """Hold rows out of a file: by label, by seed, and never a copy on both sides.

    Example: orchestrator data split rows.jsonl --eval-fraction 0.2 --group customer
    """
    _import(options, None, "")


def _import(options: dict[str, Any], columns: dict[str, str] | None, system: str) -> None:
    from orchestrator.data.import_ import Recipe, import_file
    from orchestrator.spec.load import editable

    spec: Path | None = options["spec"]
    text = editable(spec) if spec and spec.exists() else ""
    recipe = Recipe(options["kind"], columns, system, options["group"], options["eval_fraction"], options["seed"])
    file: Path = options["file"]
    folder = options["out"] or Path("datasets") / file.stem
    done = import_file(file, folder, recipe, overwrite=options["overwrite"])
    show_import(done, options["as_json"], told_to_spec=bool(spec))
    if spec:
        _write_spec(spec, text, done)


def _write_spec(file: Path, text: str, done: Imported) -> None:
    """The data set in a spec: in the text that is there, or in a new one that runs."""
    from orchestrator.cli.project import shipped_spec
    from orchestrator.spec.editing import edited

    changes = done.changes(project_of(file))
    write_text(file, edited(text or shipped_spec(done.folder.name), changes, done.outdated()))
    say(f"{'changed' if text else 'written'}: {file}; next: orchestrator check {shlex.quote(str(file))}", err=True)


@data.command()
@spec_argument
@click.option("--eval", "held_out", type=click.Path(path_type=Path), help="Held-out rows, where SPEC is a data file.")
@click.option("--with", "doubter", metavar="RUN", help="Also name labels that the base model of this run doubts.")
@json_option
def check(spec: Path, held_out: Path | None, doubter: str | None, as_json: bool) -> None:
    """Find leakage, copies, contradictory labels, odd and overlong rows; SPEC may be a data file.

    Example: orchestrator data check spec.yaml
    """
    from orchestrator.data import assemble
    from orchestrator.data.checks import require_clean

    wanted, tokens = _wanted(spec, held_out)
    with _progress() as progress:
        findings = assemble.check(wanted, tokens, progress)
    if doubter:
        findings += _doubts(spec, wanted, doubter)
    if as_json:
        print_json({"findings": [found.to_json() for found in findings], **(tokens.to_json() if tokens else {})})
    else:
        show_findings(findings, tokens)
    require_clean(findings, wanted.data.accept)


def _doubts(spec: Path, wanted: Wanted, name: str) -> list[Finding]:
    from orchestrator.data import assemble
    from orchestrator.data.doubt import doubtful_labels
    from orchestrator.runs import store

    run = store.find(project_of(spec) / "runs", name)
    config = run.folder / stage_config("prepare")
    base = Path(read_json(config)["base"]) if config.is_file() else Path()
    if not (base / "config.json").is_file():
        raise MissingError(f"the base model of {run.id} is not on this machine", "Run `orchestrator model fetch`.")
    return doubtful_labels(list(assemble.assemble(wanted).train), base)


def _wanted(path: Path, held_out: Path | None) -> tuple[Wanted, TokenCounter | None]:
    from orchestrator.data.assemble import Wanted

    if path.suffix not in (".yaml", ".yml"):
        return Wanted.of_files(path, held_out), None
    from orchestrator.pipeline.plan import mode_of
    from orchestrator.spec.load import load_project

    project = load_project(path)
    wanted = replace(Wanted.of_spec(project.spec, project.root), mode=mode_of(project))
    return wanted, _token_counter(project)


def _token_counter(project: Project) -> TokenCounter | None:
    from orchestrator.data.checks.tokens import TokenCounter, token_counter
    from orchestrator.models import sources
    from orchestrator.pipeline.plan import resolve_template

    model = project.spec.model
    base = sources.locate(model.base, project.root, project.hashes, project.runs_dir, model.trust_remote_code)
    if base.path is None or not (base.path / "tokenizer.json").is_file():
        say(f"tokens are not counted: {model.base} is not on this machine yet (model fetch)", err=True)
        return None
    counter = token_counter(base.path, resolve_template(project.spec, project.runs_dir), model.thinking)
    return TokenCounter(counter, project.spec.training["cutoff_len"])


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A counter of rows that appears only when there is time to look at it."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn(localised("{task.completed:,} rows"))
    with Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=stderr_console(), transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done: bar.update(task, completed=max(done, bar.tasks[task].completed))


@data.command()
@file_argument
@click.option("--eval", "held_out", type=click.Path(path_type=Path), help="Held-out rows to clean with it.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the cleaned files.")
@kind_option
@json_option
def clean(file: Path, held_out: Path | None, out: Path, kind: Any, as_json: bool) -> None:
    """Strip texts, unify labels, drop repeated and leaked rows; into a new folder, with a list of the changes.

    Example: orchestrator data clean train.json --eval eval.json --out datasets/clean
    """
    from orchestrator.data.clean import clean_files

    done = clean_files(file, held_out, out, kind)
    if as_json:
        print_json(done.to_json())
        return
    for line in done.lines(_SHOWN):
        say(line)
    say(f"{out}: {counted(len(done.train), 'row')} to train on, {len(done.held_out)} held out", err=True)


@data.command()
@file_argument
@kind_option
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE.svg", help="Also draw the bars.")
@json_option
def stats(file: Path, kind: Any, picture: Path | None, as_json: bool) -> None:
    """Labels, lengths and scripts of a data file, as bars.

    Example: orchestrator data stats train.json --picture train.svg
    """
    from orchestrator.data.split import stats_of_file

    found = stats_of_file(file, kind)
    if picture:
        write_text(picture, drawn(found, file.name))
    if as_json:
        print_json(found.to_json())
    else:
        show_stats(found, stdout_console())


@data.command()
@click.argument("name", metavar="hf:ORG/NAME:SPLIT")
def fetch(name: str) -> None:
    """Download a data set of the Hugging Face hub, for `data:` in the spec or for import.

    Example: orchestrator data fetch hf:fancyzhx/ag_news:train
    """
    from orchestrator.data.hub import fetch as download

    for path in download(name):
        click.echo(path)
