"""`orchestrator schema`."""

from __future__ import annotations

import json

import click


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
