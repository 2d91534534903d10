"""A seeded draw of what `make sabotage` does, on a run whose stages take no time: each damage by itself."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.runs import proof, store
from tests.faults import stand_in
from tests.sabotage.damages import KINDS, Damage, files_of, single_bytes, the_rest
from tests.sabotage.repair import results, unrepaired
from tests.sabotage.verdict import PARTS, judge, part_of

SEED, EACH = 19, 4


@dataclass(frozen=True, slots=True)
class Victim:
    """A finished run, a copy of it, and the project that can make it again."""

    project: Path
    folder: Path
    pristine: Path

    def repair(self) -> None:
        """As `orchestrator run --paranoid` does."""
        stand_in.carry_out(self.project, paranoid=True)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Made once; a test leaves it as it was, or repaired."""
    folder = tmp_path_factory.mktemp("sabotage")
    with stand_in.project_in(folder) as project:
        run = stand_in.carry_out(project)
        yield Victim(project, run.folder, Path(shutil.copytree(run.folder, folder / "pristine")))


def draw(folder: Path) -> list[Damage]:
    """So many damages of each kind, and among them each part of a run that the stand-in has."""
    chance, files = random.Random(SEED), files_of(folder)
    every = [*single_bytes(files, 2 * len(files), chance), *the_rest(files, folder, chance)]
    chance.shuffle(every)
    of_kind = [damage for kind in KINDS for damage in [one for one in every if one.kind == kind][:EACH]]
    parts = {part_of(damage.path): damage for damage in every}
    return [*of_kind, *parts.values()]


def test_each_damage_is_named_refused_and_repaired(victim: Victim) -> None:
    damages = draw(victim.folder)
    assert {damage.kind for damage in damages} == set(KINDS)
    assert {part_of(damage.path) for damage in damages} == set(PARTS) - {"checkpoints"}
    for damage in damages:
        shutil.rmtree(victim.folder)
        shutil.copytree(victim.pristine, victim.folder)
        damage.inflict(victim.folder, victim.pristine)
        assert judge(damage, victim.folder).holes == [], damage
        shutil.rmtree(victim.folder)
        shutil.copytree(victim.pristine, victim.folder)
        assert unrepaired([damage], victim.folder, victim.pristine, victim.repair) == [], damage


def test_all_files_at_once_are_repaired(victim: Victim) -> None:
    """But for the copy of the record: with both gone, nobody knows what the run was."""
    files = [path for path in files_of(victim.folder) if path != "run.copy.json"]
    before = results(store.load(victim.folder))
    damages = [Damage("cut in half", path) for path in files]
    assert unrepaired(damages, victim.folder, victim.pristine, victim.repair) == []
    assert results(store.load(victim.folder)) == before


def test_with_record_and_copy_gone_it_is_no_run_and_a_new_one_is_made(victim: Victim) -> None:
    for name in ("run.json", "run.copy.json"):
        (victim.folder / name).write_text('{"schema": 1}', encoding="utf-8")
    victim.repair()
    (again,) = store.every(victim.project / "runs")
    assert again.folder != victim.folder
    assert proof.damaged(again) == []
    shutil.rmtree(victim.folder)
    again.folder.rename(victim.folder)
