"""`orchestrator init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", default=".", metavar="[DIR]", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a project that runs: spec.yaml and its schema, a Makefile, a small dataset, .gitignore.

    Nothing is asked and nothing replaced.

    Example: orchestrator init my-model
    """
    from orchestrator.init import create

    for path in create(folder):
        click.echo(path)
    where = "" if folder == Path() else f"cd {folder} && "
    click.echo(f"next: {where}orchestrator check && orchestrator run", err=True)
