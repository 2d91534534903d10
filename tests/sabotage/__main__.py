"""`python -m tests.sabotage`: every damage to a finished run on the tiny model, and the table of what became of it."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.lib.files import cache_folder, write_text
from tests.conftest import TINY, make_project, run_tool
from tests.sabotage.damages import KINDS, Damage, files_of, put_back, single_bytes, the_rest
from tests.sabotage.repair import rounds, unrepaired
from tests.sabotage.verdict import PARTS, Verdict, judge, part_of

HEAD = """\
# Sabotage

Written by `make sabotage`: a finished run of the whole chain on a tiny model, {files} files, and {count} damages to
them, one at a time: {bytes} single changed bytes, two of three with the file's modification time put back, and
each file deleted, emptied, cut in half and exchanged with another. Each must be *named* by `orchestrator verify`,
*refused* by whatever would ship the file or is decided by it (GGUFs, adapter, merged model), and *repaired* by
`orchestrator run --paranoid`, after which weights, GGUF files, Modelfiles and figures are those of before.

What nothing proves, logs and pages, is named as that, and nothing ships it. A damaged checkpoint of a finished
training is removed. A file that another one of the run holds as well, such as the adapter in the last checkpoint,
is taken from there; otherwise its stage is repeated, and what follows from it only if it came out differently.
Repairs are tried with all damages of a kind done together.

| part of the run | damages | named | would ship | refused | repaired |
|---|---:|---:|---:|---:|---:|
"""


def main(count: int, seed: int, output: Path) -> int:
    """Do all of it; returns 1 when something passed that must not."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        project = make_project(Path(name) / "project", cache_folder() / "models" / TINY)
        _run(project, "run")
        folder = next(file.parent for file in project.glob("runs/*/run.json"))
        pristine = Path(shutil.copytree(folder, Path(name) / "pristine"))
        damages = drawn(folder, count, random.Random(seed))
        verdicts = [_tried(damage, folder, pristine) for damage in damages]
        failed = dict(_repairs(damages, folder, pristine, project))
        files = len(files_of(pristine))
    holes = [f"{v.damage.kind}, {v.damage.path}: {hole}" for v in verdicts for hole in v.holes]
    holes += [f"{kind}: not repaired: {line}" for kind, lines in failed.items() for line in lines]
    write_text(output, page(verdicts, failed, files, count))
    print("\n".join(holes) or f"{len(damages)} damages, no hole", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return int(bool(holes))


def drawn(folder: Path, count: int, chance: random.Random) -> list[Damage]:
    """The damages, in the order in which they are done."""
    files = files_of(folder)
    return [*single_bytes(files, count, chance), *the_rest(files, folder, chance)]


def _tried(damage: Damage, folder: Path, pristine: Path) -> Verdict:
    damage.inflict(folder, pristine)
    try:
        return judge(damage, folder)
    finally:
        put_back(damage, pristine, folder)


def _repairs(damages: Sequence[Damage], folder: Path, pristine: Path, project: Path) -> list[tuple[str, list[str]]]:
    """Kind of damage → what was not repaired. Each round begins with the run as it was."""
    found = []
    for group in rounds(damages):
        shutil.rmtree(folder)
        shutil.copytree(pristine, folder)
        lines = unrepaired(group, folder, pristine, lambda: _run(project, "run", "--paranoid"))
        print(f"{group[0].kind}, {len(group)} damages together: {lines or 'repaired'}", file=sys.stderr, flush=True)
        found.append((group[0].kind, lines))
    return [(kind, [line for of, lines in found if of == kind for line in lines]) for kind in KINDS]


def _run(project: Path, *arguments: str) -> None:
    done = run_tool(arguments, project)
    if done.code:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.code}:\n{done.stderr}")


def page(verdicts: Sequence[Verdict], failed: dict[str, list[str]], files: int, count: int) -> str:
    """The Markdown page."""
    lines = [_row(part, [v for v in verdicts if part_of(v.damage.path) == part], failed) for part in PARTS]
    lines.append(_row("**all**", verdicts, failed))
    kinds = {kind: [v for v in verdicts if v.damage.kind == kind] for kind in KINDS}
    by_kind = (
        "\n| kind of damage | damages | named | would ship | refused | repaired |\n|---|---:|---:|---:|---:|---:|\n"
    )
    by_kind += "\n".join(_row(kind, of, failed) for kind, of in kinds.items())
    head = HEAD.format(files=files, count=len(verdicts), bytes=count)
    return f"{head}{chr(10).join(lines)}\n{by_kind}\n"


def _row(title: str, verdicts: Sequence[Verdict], failed: dict[str, list[str]]) -> str:
    named, ships, refused = (sum(getattr(v, key) for v in verdicts) for key in ("named", "ships", "refused"))
    repaired = sum(not failed[v.damage.kind] for v in verdicts)
    return f"| {title} | {len(verdicts)} | {named} | {ships} | {refused} | {repaired} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description="Damage a finished run in every way.")
    parser.add_argument("--count", type=int, default=300, help="single changed bytes")
    parser.add_argument("--seed", type=int, default=0, help="chooses them")
    parser.add_argument("--output", type=Path, default=Path("docs/sabotage.md"), help="where the table goes")
    sys.exit(main(**vars(parser.parse_args())))
