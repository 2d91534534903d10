"""model: base models on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import download_progress, json_option, print_json, stderr_console


@click.group()
def model() -> None:
    """Download or build base models."""


@model.command()
@click.argument("base", default="builtin:smollm2-135m-instruct")
@json_option
def fetch(base: str, as_json: bool) -> None:
    """Get a base model, and llama.cpp's converter, onto this machine.

    Example: orchestrator model fetch hf:Qwen/Qwen2.5-0.5B-Instruct
    """
    from orchestrator import llamacpp, models
    from orchestrator.cache import cache_folder
    from orchestrator.files import HashCache

    progress = download_progress(stderr_console())
    hashes = HashCache(cache_folder() / "hashes.json")
    found = models.fetch(base, Path.cwd(), hashes, progress)
    llamacpp.fetch(None, progress)
    answer = {
        "base": base,
        "path": str(found.path),
        "template": models.template_of(base),
        "sha256": models.content_hash(found, hashes),
    }
    hashes.save()
    print_json(answer) if as_json else click.echo(found.path)
