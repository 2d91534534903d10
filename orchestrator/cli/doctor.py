"""`doctor` and `model`: what is on this machine, base models among it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import (
    download_progress,
    json_option,
    print_json,
    say,
    set_option,
    spec_argument,
    stdout_console,
)
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import HashCache, cache_folder
from orchestrator.lib.language import localised

if TYPE_CHECKING:
    from orchestrator.report.doctor_packages import Check, Patient

MARKS = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "missing": "[red]✗[/]"}


@click.command()
@spec_argument
@set_option
@click.option("--online", is_flag=True, help="Also ask the model hubs whether they answer.")
@click.option("--try", "trying", is_flag=True, help="Also train a toy for one step and convert it (20 s).")
@json_option
def doctor(spec: Path, overrides: tuple[str, ...], online: bool, trying: bool, as_json: bool) -> None:
    """Look at this machine for what a spec needs; without a spec.yaml, for what the built-in model needs.

    Exit code 3 when something needed is missing; each line says what fixes it.

    Example: orchestrator doctor --online
    """
    from dataclasses import asdict

    from orchestrator.pipeline import estimate
    from orchestrator.report.doctor import examine

    patient = _patient(spec, overrides, online, trying)
    checks, memory = examine(patient), estimate.of_spec(patient.spec, patient.project)
    missing = [check for check in checks if check.state == "missing"]
    if as_json:
        answer = {"ok": not missing, "checks": [asdict(check) for check in checks]}
        print_json({**answer, "memory": estimate.to_json(memory)})
    else:
        _show(checks)
        say("\n".join(estimate.lines(memory)))
    if missing:
        raise MissingError(f"missing: {', '.join(check.name for check in missing)}", missing[0].fix)


def _patient(spec: Path, overrides: tuple[str, ...], online: bool, trying: bool) -> Patient:
    """The spec's project; this folder and the built-in model where there is no spec, or nothing to read it with."""
    from orchestrator.report.doctor_packages import Patient
    from orchestrator.spec.load import load_project
    from orchestrator.spec.sections import Data, Spec

    if spec != Path("spec.yaml") or spec.exists():
        with contextlib.suppress(MissingError):  # LLaMA-Factory; the examination will say so
            project = load_project(spec, overrides)
            return Patient(project.root, project.spec, online, trying)
    return Patient(Path.cwd(), Spec(name="none", data=Data(train="none")), online, trying)


def _show(checks: list[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for check in checks:
        fix = f"\n[bold]{escape(localised(check.fix))}[/]" if check.fix else ""
        table.add_row(MARKS[check.state], escape(localised(check.name)), escape(localised(check.detail)) + fix)
    stdout_console().print(table)


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
    from orchestrator.models import llamacpp, sources

    progress = download_progress()
    hashes = HashCache(cache_folder() / "hashes.json")
    found = sources.fetch(base, Path.cwd(), hashes, progress)
    llamacpp.fetch(None, progress)
    answer = {
        "base": base,
        "path": str(found.path),
        "template": sources.template_of(base),
        "sha256": sources.content_hash(found.path, hashes) if found.path else None,
    }
    hashes.save()
    print_json(answer) if as_json else click.echo(found.path)
