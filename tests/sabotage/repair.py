"""Many damages at once, one `run --paranoid`, and whether the run is what it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.lib import layout
from orchestrator.lib.files import sha256
from orchestrator.runs import proof, store
from orchestrator.runs.store import Run
from tests.sabotage.damages import Damage
from tests.sabotage.verdict import SHIPS, refuses

SAME = ("adapter", "merged_model", "gguf", "train_data", "eval_data")
"""Parts of the lineage that a repaired run must have again, byte by byte."""


def rounds(damages: Sequence[Damage]) -> list[list[Damage]]:
    """Damages that can be done together: those of one kind, but never to a record and to its copy."""
    kinds = dict.fromkeys(damage.kind for damage in damages)
    of_kind = [[damage for damage in damages if damage.kind == kind] for kind in kinds]
    split = [[[d for d in of if (d.path == layout.RECORD_COPY) is copy] for copy in (False, True)] for of in of_kind]
    return [group for pair in split for group in pair if group]


def results(run: Run) -> dict[str, object]:
    """What must come out again."""
    modelfiles = {path.name: sha256(path) for path in run.folder.glob(f"{layout.MODELFILE}*")}
    return {**{key: run.record["lineage"][key] for key in SAME}, "metrics": run.record["metrics"], **modelfiles}


def unrepaired(group: Sequence[Damage], folder: Path, pristine: Path, repair: Callable[[], None]) -> list[str]:
    """Inflict all of a group and repair; what is not as it was afterwards."""
    before = results(store.load(folder))
    for damage in group:
        damage.inflict(folder, pristine)
    repair()
    run = store.load(folder)
    after = results(run)
    return [
        *proof.damaged(run),
        *(f"{key} came out otherwise" for key in before if before[key] != after.get(key)),
        *(f"{name} is refused" for name in SHIPS if refuses(name, run)),
    ]
