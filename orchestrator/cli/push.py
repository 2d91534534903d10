"""push: bring what was trained to Ollama, the Hugging Face hub or ModelScope."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    download_progress,
    found_runs_dir_option,
    json_option,
    print_json,
    project_here,
    say,
)
from orchestrator.lib.errors import MissingError
from orchestrator.runs import store

if TYPE_CHECKING:
    from orchestrator.runs.store import Run


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[RUN] TARGET")
@found_runs_dir_option
@click.option("--artifact", help="q4_k_m, f16, …, adapter; for a hub also lora or tuned [the gate's recommendation].")
@click.option("--host", help="Ollama's address [OLLAMA_HOST].")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="DIR", help="Write a folder for Ollama instead.")
@click.option("--public", is_flag=True, help="Make the repository public.")
@click.option("--force", is_flag=True, help="Ship what failed the quality gate, or what changed since.")
@click.option("--dry-run", is_flag=True, help="List every file and its size, and send nothing.")
@json_option
def push(arguments: tuple[str, ...], runs_dir: Path, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Bring a run to Ollama (ollama:NAME), the Hugging Face hub (hf:ORG/NAME) or ModelScope (modelscope:ORG/NAME).

    Example: orchestrator push ollama:news
    """
    *named, target = arguments
    if len(named) > 1:
        raise click.UsageError(f"too many arguments: {' '.join(arguments)}")
    source, _, name = target.partition(":")
    if source not in ("ollama", "hf", "modelscope") or not name:
        raise click.UsageError(f"cannot push to {target!r}; write ollama:NAME, hf:ORG/NAME or modelscope:ORG/NAME")
    run = store.find(runs_dir, named[0] if named else None)
    send = _push_ollama if source == "ollama" else _push_hub
    answer = send(run, target, artifact, options)
    print_json(answer) if as_json else say(answer["done"])


def _push_ollama(run: Run, target: str, artifact: str | None, options: dict[str, Any]) -> dict[str, Any]:
    from orchestrator.serving import bundle, ollama, ollama_server
    from orchestrator.serving.artifacts import choose_gguf

    name = target.removeprefix("ollama:")
    kind = choose_gguf(run, artifact, options["force"])
    if options["dry_run"]:
        return _listing([(path.name, path.stat().st_size) for path in bundle.files(run, kind)])
    folder = options["bundle"] or run.folder / "export" / f"bundle-{kind}"
    if options["bundle"]:
        bundle.write(run, kind, name, folder)
        return {"bundle": str(folder), "done": bundle.command(name, folder)}
    try:
        server = ollama_server.connect(options["host"])
    except MissingError as error:
        bundle.write(run, kind, name, folder)
        raise MissingError(error.message, f"A bundle is ready: {bundle.command(name, folder)}") from None
    progress = download_progress("sending")
    return ollama.ship(run, kind, name, server, progress)


def create_in_ollama(run: Run, name: str) -> None:
    """What `export.ollama.create` asks for at the end of the chain, unless it was done for this very file."""
    from orchestrator.serving.artifacts import choose_gguf
    from orchestrator.serving.ollama import is_current

    kind = choose_gguf(run, None, force=False)
    if not is_current(run, kind, name):
        options = {"force": False, "dry_run": False, "bundle": None, "host": None}
        say(_push_ollama(run, f"ollama:{name}", kind, options)["done"], err=True)


def _push_hub(run: Run, target: str, artifact: str | None, options: dict[str, Any]) -> dict[str, Any]:
    from orchestrator.models.hub import parse
    from orchestrator.serving import hub
    from orchestrator.serving.artifacts import choose

    source, repository, _ = parse(target)
    wanted = artifact if artifact in ("lora", "tuned") else choose(run, artifact, options["force"])
    uploads = hub.collect(run, wanted, project_here(), options["force"])
    if options["dry_run"]:
        return _listing([(one.name, one.bytes) for one in uploads])
    message = f"{wanted} of run {run.id}"
    url = hub.push(hub.Target(source, repository, options["public"]), uploads, message)
    return {"url": url, "files": [one.name for one in uploads], "done": url}


def _listing(files: list[tuple[str, int]]) -> dict[str, Any]:
    from rich.filesize import decimal

    lines = [f"{decimal(size):>10}  {name}" for name, size in files]
    return {"files": [{"path": name, "bytes": size} for name, size in files], "done": "\n".join(lines)}
