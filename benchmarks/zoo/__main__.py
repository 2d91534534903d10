"""python -m benchmarks.zoo [NAME …]: take families through the whole chain; write docs/models.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from benchmarks.harness import ROOT, machine
from benchmarks.zoo import chain, gemma, page, recipe
from benchmarks.zoo.families import FAMILIES, miniature
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json, write_json

RESULTS = ROOT / "benchmarks/zoo/results.json"
REAL, RECIPE = gemma.NAME, "recipe"
KNOWN = (*FAMILIES, RECIPE, REAL)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--work", type=click.Path(path_type=Path), help="Where to build and run; kept. [a temporary folder]")
def main(names: tuple[str, ...], work: Path | None) -> None:
    """Take families through the whole chain, all of them unless some are named, and write docs/models.md.

    `recipe` runs the commands of docs/recipe.md in miniature, `gemma-3-270m` trains a real model (half an hour on two
    cores).
    """
    if unknown := set(names) - set(KNOWN):
        raise click.UsageError(f"no {', '.join(sorted(unknown))}; choose from {', '.join(KNOWN)}")
    with tempfile.TemporaryDirectory() as temporary:
        lost = [name for name in names or KNOWN if not tried(name, (work or Path(temporary)).resolve())]
    if lost:
        raise click.ClickException(f"not as it should be: {', '.join(lost)}")


def tried(name: str, work: Path) -> bool:
    """Try one name, keep what came of it, and say so; False when it should have gone through and did not."""
    try:
        good, said = TRIES.get(name, family)(name, work)
    except MissingError as error:
        good, said = True, f"left out: {error}"
    click.echo(f"{name}: {said}")
    return good


def family(name: str, work: Path) -> tuple[bool, str]:
    """A family's miniature through the chain."""
    which = FAMILIES[name]
    base = miniature(which, work / "models")
    row = chain.passed_through(base, work / name, adapter=not which.no_adapter)
    keep("families", {**stored().get("families", {}), name: row})
    return row["outcome"] == "passes" or bool(which.fault), f"{row['outcome']} {row.get('because', '')}".strip()


def real(name: str, work: Path) -> tuple[bool, str]:
    """Gemma 3 270M, trained."""
    facts = machine()
    found = {"cores": facts["cores"], "processor": facts["processor"]} | gemma.trained(work / name)
    keep("gemma", found)
    accuracy = {artifact: values["accuracy"]["value"] for artifact, values in found["artifacts"].items()}
    return True, ", ".join(f"{artifact} {value:.0f}" for artifact, value in accuracy.items())


def commands(name: str, work: Path) -> tuple[bool, str]:
    """The commands of docs/recipe.md."""
    base = miniature(FAMILIES["r1-distill-qwen"], work / "models")
    failed = recipe.failures(base, work / name)
    return not failed, "; ".join(failed) or "every command does what the page says"


TRIES = {REAL: real, RECIPE: commands}


def stored() -> dict[str, Any]:
    """What earlier calls found."""
    return dict(read_json(RESULTS)) if RESULTS.is_file() else {}


def keep(key: str, value: Any) -> None:
    """Put one part of the results into the file, and both tables into the page."""
    results = {"families": {}, **stored(), key: value}
    if key == "families":
        results[key] = dict(_ordered(value, FAMILIES))
    write_json(RESULTS, results)
    page.renew(results)


def _ordered(rows: dict[str, Any], names: Iterable[str]) -> list[tuple[str, Any]]:
    return [(name, rows[name]) for name in names if name in rows]


if __name__ == "__main__":
    main()
