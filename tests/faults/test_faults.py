"""A seeded handful of the faults that `make faults` injects, one of each kind at least."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.kinds import Fault
from tests.faults.survival import Example, example, inject

SEED = 20
KINDS = 41
"""How many kinds there are; each is injected once."""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return example(tmp_path_factory.mktemp("chain"))


def one_of_each(chain: Example) -> list[Fault]:
    faults = chain.faults(10, random.Random(SEED))
    random.Random(SEED).shuffle(faults)
    return sorted({fault.kind: fault for fault in faults}.values(), key=lambda fault: fault.kind)


@pytest.mark.parametrize("number", range(KINDS))
def test_the_chain_survives(chain: Example, tmp_path: Path, number: int) -> None:
    fault = one_of_each(chain)[number]
    verdict = inject(fault, chain, tmp_path / "work")
    assert verdict.complaints == (), f"{fault.kind} at {fault.where}"
    assert verdict.lost == 0


def test_every_kind_has_its_turn(chain: Example) -> None:
    assert len(one_of_each(chain)) == KINDS


def test_a_chain_that_nothing_happens_to_has_hundreds_of_effects(chain: Example) -> None:
    assert len(chain.effects) > 200
    assert len(chain.results["outputs"]) == 21
