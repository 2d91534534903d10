"""What the tool makes of a damage, beside what it must make of it. The expectations are written down here by hand."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lib.errors import GateError, MissingError
from orchestrator.runs import proof, store
from orchestrator.runs.store import Run
from orchestrator.serving.artifacts import choose, choose_gguf
from orchestrator.serving.proven import require_proven
from tests.sabotage.damages import Damage

UNPROVEN = ("logs/*", "report.html", ".lock")
PARTS = {
    "the record and its copy": ("run.json", "run.copy.json"),
    "spec, configurations": ("spec.yaml", "configs/*"),
    "data": ("data/*",),
    "checkpoints": ("train/checkpoint-*",),
    "adapter and what lies beside it": ("train/*",),
    "merged model": ("export/as-merged/*", "export/merged/*", "export/metadata.json"),
    "GGUF files": ("*.gguf",),
    "Modelfiles": ("export/Modelfile*",),
    "answers, figures, verdicts": ("evaluation/*",),
    "logs and pages, which nothing proves": UNPROVEN,
}
"""Part of a run → its files; the first that fits."""
EVIDENCE = ("run.json", "run.copy.json", "spec.yaml", "configs/*", "data/*", "evaluation/*")
"""Decide about every artifact."""
SHIPPED = {
    "f16": ("export/tiny-f16.gguf", "export/Modelfile.f16"),
    "q8_0": ("export/tiny-q8_0.gguf", "export/Modelfile.q8_0"),
    "lora": ("train/adapter_*", "train/tokenizer*", "train/chat_template.jinja"),
    "tuned": ("train/adapter_*", "train/tokenizer*", "train/chat_template.jinja", "export/merged/*"),
}
SHIPS: dict[str, Callable[[Run], object]] = {
    "f16": lambda run: choose_gguf(run, "f16", force=False),
    "q8_0": lambda run: choose_gguf(run, "q8_0", force=False),
    "lora": lambda run: require_proven(run, "lora"),
    "tuned": lambda run: choose(run, "tuned"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happened to one damage."""

    damage: Damage
    named: bool
    """By verify: as damaged or, where nothing proves the file, as such."""
    ships: int
    """How many artifacts would take the file with them, or be decided by it."""
    refused: int
    """How many of them were refused."""

    @property
    def holes(self) -> list[str]:
        """What passed that must not."""
        unnamed = [] if self.named else ["not named"]
        return unnamed + (
            [f"{self.ships - self.refused} of {self.ships} shipped it"] if self.refused < self.ships else []
        )


def fits(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def part_of(path: str) -> str:
    return next(part for part, patterns in PARTS.items() if fits(path, patterns))


def judge(damage: Damage, folder: Path) -> Verdict:
    """Look at a run that a damage was inflicted on."""
    run = store.load(folder)
    ships = [name for name, patterns in SHIPPED.items() if fits(damage.path, (*EVIDENCE, *patterns))]
    return Verdict(damage, named(damage.path, run), len(ships), sum(refuses(name, run) for name in ships))


def named(path: str, run: Run) -> bool:
    """Whether verify says of this very file that it is damaged, or that nothing proves it."""
    if fits(path, UNPROVEN):
        return not (run.folder / path).exists() or path in proof.unproven(run)
    return any(line.startswith((f"{path}: ", f"{run.folder.name}/{path} ")) for line in proof.damaged(run))


def refuses(name: str, run: Run) -> bool:
    """Whether an artifact is kept back for what was damaged, or because it is gone."""
    try:
        SHIPS[name](run)
    except MissingError:
        return True
    except GateError as error:
        return "not what was proven" in error.message
    return False
