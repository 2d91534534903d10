"""Which type each group of weight matrices gets, so that a file fits into a budget and loses least. Pure.

Matrices of one role, such as `ffn_down` of every layer, are a group with one type. What each group loses by each type
is measured with all others left as they are, and taken to add up: divergences are of second order in small errors that
do not know of each other. Among all mixtures that fit the one of the least sum is found exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

LADDERS = {
    256: ("q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k"),
    32: ("q8_0", "q5_1", "q5_0", "iq4_nl"),
}
"""Columns must be a multiple of → the types that are tried, the most exact first."""
ALIGNMENT = 32
"""Bytes that each matrix begins at a multiple of; ggml's default."""
HEADER = 4096
"""Bytes that the metadata of a quantised file may have more than those of the file it is made of."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of a file."""

    name: str
    shape: tuple[int, ...]
    """Columns first."""
    kind: str
    """Its type, in lower case."""


@dataclass(frozen=True, slots=True)
class Option:
    """A type that a group may have."""

    kind: str
    bytes: int
    damage: float = 0.0
    """Divergence from the file as it is, in nats a token, when only this group has this type."""


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices of one role."""

    role: str
    options: tuple[Option, ...]
    """The first leaves it as it is."""

    @property
    def pattern(self) -> str:
        """What fits the names of its matrices, as a regular expression."""
        return rf"^(blk\.[0-9]+\.)?{re.escape(self.role)}$"


def groups(matrices: Sequence[Matrix], quantisable: Iterable[str]) -> list[Group]:
    """The groups of the matrices that may be quantised, each with the types that all its matrices can have."""
    of_role: dict[str, list[Matrix]] = {}
    names = set(quantisable)
    for matrix in matrices:
        if matrix.name in names:
            of_role.setdefault(role(matrix.name), []).append(matrix)
    return [Group(name, tuple(_options(members))) for name, members in of_role.items()]


def role(name: str) -> str:
    """A matrix's name without the number of its layer."""
    return re.sub(r"^blk\.\d+\.", "", name)


def _options(members: Sequence[Matrix]) -> Iterator[Option]:
    kinds = next((kinds for columns, kinds in LADDERS.items() if all(m.shape[0] % columns == 0 for m in members)), ())
    yield Option(members[0].kind, sum(size(matrix) for matrix in members))
    for kind in kinds:
        yield Option(kind, sum(size(replace(matrix, kind=kind)) for matrix in members))


def size(matrix: Matrix) -> int:
    """Bytes of a matrix in a file, with the gap behind it."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, bytes_ = GGML_QUANT_SIZES[GGMLQuantizationType[matrix.kind.upper()]]
    elements = 1
    for extent in matrix.shape:
        elements *= extent
    return int(-(-elements // block * bytes_ // ALIGNMENT) * ALIGNMENT)


def smallest(of: Sequence[Group]) -> int:
    """Bytes of the groups with the fewest bits each."""
    return sum(min(option.bytes for option in group.options) for group in of)


def choose(of: Sequence[Group], room: int) -> dict[str, Option]:
    """Role → option, of the least damage in all that fits into so many bytes, of which there must be enough for the
    smallest.

    The multiple-choice knapsack by its Pareto front: after each group only those mixtures are kept that no other one
    beats in size and damage (Nemhauser & Ullmann, 1969).
    """
    front: list[tuple[int, float, tuple[Option, ...]]] = [(0, 0.0, ())]
    for group in of:
        grown = (
            (taken + option.bytes, damage + option.damage, (*chosen, option))
            for taken, damage, chosen in front
            for option in group.options
        )
        front = list(_unbeaten(sorted(grown, key=lambda one: one[:2]), room))
    return dict(zip((group.role for group in of), front[-1][2], strict=True))


def _unbeaten(
    grown: Iterable[tuple[int, float, tuple[Option, ...]]], room: int
) -> Iterator[tuple[int, float, tuple[Option, ...]]]:
    least = float("inf")
    for one in grown:
        if one[0] <= room and one[1] < least:
            least = one[1]
            yield one


def measured(of: Sequence[Group], damages: Mapping[tuple[str, str], float]) -> list[Group]:
    """The groups with what was measured, (role, type) → nats; fewer bits never lose less, whatever chance says."""
    found = []
    for group in of:
        worst, options = 0.0, [group.options[0]]
        for option in group.options[1:]:
            worst = max(worst, damages[group.role, option.kind])
            options.append(replace(option, damage=worst))
        found.append(replace(group, options=tuple(options)))
    return found


FILE_TYPES = {"q6_k": "q6_k", "q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m", "q2_k": "q2_k"}
"""Tensor type → what a whole file that has mostly that one is called, where that has another name."""


def called(chosen: Mapping[str, Option]) -> str:
    """The whole-file type that a mixture comes nearest to: that of the most bytes among its quantised groups."""
    kinds: dict[str, int] = {}
    for option in chosen.values():
        kinds[option.kind] = kinds.get(option.kind, 0) + option.bytes
    quantised = {kind: size for kind, size in kinds.items() if kind not in ("f16", "f32", "bf16")}
    kind = max(quantised, key=lambda name: quantised[name], default="q8_0")
    return FILE_TYPES.get(kind, kind)
