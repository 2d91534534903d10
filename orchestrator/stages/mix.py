"""quantise-mixed: a GGUF of a wanted size, each kind of weight matrix with the type that costs least there.

What a type costs a kind of matrix is measured: it alone is quantised, and training rows are read with it. The held-out
rows stay what the finished file is judged by.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, StageError
from orchestrator.lib.files import read_json, temporary_beside, write_json
from orchestrator.lib.sequences import first_difference
from orchestrator.lib.step import Step
from orchestrator.spec.export import MIXED
from orchestrator.stages.base import Context, Stage
from orchestrator.stages.convert import source_type
from orchestrator.stages.importance import NAME as IMPORTANCE
from orchestrator.stages.importance import ROLES, text_of, uses_it

if TYPE_CHECKING:
    from orchestrator.evaluation.divergence import Expectations
    from orchestrator.models.gguf import GgufModel
    from orchestrator.models.mixture import Group, Option

RECORD = "mixture"
"""What it chose, among what a run measured."""
ROWS = 48
"""Training rows that are read with each candidate, spread evenly."""
TOKENS = 4096
"""Tokens of them that are read at most, so that long rows do not take long."""
Given = Sequence[tuple[list[int], list[int]]]
"""Prompt and answer of each row, in tokens."""


@dataclass(frozen=True)
class Mix(Stage):
    """The file, and beside it what was measured and chosen."""

    program = "mix"
    phase = "quantise"
    optional = ("importance",)
    source: str
    target: str
    record: str
    rows: str
    budget: int
    """Bytes."""
    importance: str | None = None
    most_rows: int = ROWS
    most_tokens: int = TOKENS

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where the spec names a size."""
        export, name = context.spec.export, context.spec.name
        if (budget := export.size_bytes) is None:
            return []
        target, matters = layout.gguf(name, MIXED), uses_it(export, MIXED)
        stage = cls(
            source=layout.gguf(name, source_type(export.kinds)),
            target=layout.partial(target),
            record=layout.summary(RECORD),
            rows=layout.TRAIN_ROWS,
            budget=budget,
            importance=layout.importance(name) if matters else None,
        )
        return [
            stage.step(
                f"quantise-{MIXED}",
                expects=(target, stage.record),
                needs=("prepare", "convert", *((IMPORTANCE,) if matters else ())),
                reads=(stage.rows, stage.source, *((stage.importance,) if stage.importance else ())),
                inputs=context.picked("llama-cpp-python"),
                partials={stage.target: target},
            )
        ]

    def run(self) -> None:
        """Write both. Raises InputError where no mixture is so small."""
        from orchestrator.models import mixture

        target = Path(self.target)
        with _folder(target) as folder:
            groups, fixed = self._groups(folder / "q8_0.gguf")
            self._require_room(groups, fixed)
            if Path(self.source).stat().st_size <= self.budget:
                shutil.copyfile(self.source, target)
                chosen = {group.role: group.options[0] for group in groups}
            else:
                groups = mixture.measured(groups, self._damages(groups, folder / "one.gguf"))
                chosen = mixture.choose(groups, self.budget - fixed)
                self._quantise(target, groups, chosen)
        if (size := target.stat().st_size) > self.budget:
            raise StageError(f"the mixture has {size:,} bytes, not {self.budget:,}", "Set export.size a bit lower.")
        found = summary(groups, chosen, self.budget, size)
        print(found["sentence"], flush=True)
        write_json(Path(self.record), {RECORD: found})

    def _groups(self, probe: Path) -> tuple[list[Group], int]:
        """What can be quantised, by what llama.cpp quantises when it is told to; and the bytes of all the rest."""
        from orchestrator.models import mixture
        from orchestrator.models.gguf_tensor import matrices
        from orchestrator.stages.quantise import quantise

        source = Path(self.source)
        quantise(source, probe, "q8_0")
        before, after = matrices(source), {one.name: one.kind for one in matrices(probe)}
        changed = [one for one in before if after[one.name] != one.kind]
        fixed = source.stat().st_size - sum(map(mixture.size, changed)) + mixture.HEADER
        return mixture.groups(before, [one.name for one in changed]), fixed

    def _require_room(self, groups: Sequence[Group], fixed: int) -> None:
        from orchestrator.models import mixture

        least = fixed + mixture.smallest(groups)
        if least > self.budget:
            raise InputError(
                f"export.size: the smallest file of this model has {megabytes(least)}, not {megabytes(self.budget)}",
                f"Set export.size to {megabytes(least).replace(' ', '')} or more, or train a smaller model.",
            )

    def _damages(self, groups: Sequence[Group], file: Path) -> dict[tuple[str, str], float]:
        """(role, type) → mean divergence in nats a token from the source, where only that role has that type."""
        given, reference = self._reference()
        wanted = [(group, option) for group in groups for option in group.options[1:]]
        found = {}
        for count, (group, option) in enumerate(wanted, 1):
            self._quantise(file, groups, {group.role: option})
            found[group.role, option.kind] = divergence(file, given, reference)
            print(f"{count}/{len(wanted)} {group.role} {option.kind}: {found[group.role, option.kind]:.5f}", flush=True)
        return found

    def _reference(self) -> tuple[Given, Expectations]:
        """The rows to read, and what the source expects there."""
        from orchestrator.evaluation.divergence import expectation, expectations, kept
        from orchestrator.models.gguf import GgufModel

        with GgufModel(Path(self.source)) as model:
            given = list(self._given(model, read_json(Path(self.rows))))
            keep = kept(sum(len(answer) for _, answer in given))
            read = _read(model, given, lambda logits, row, place: expectation(logits, given[row][1][place], keep))
            return given, expectations(place for places in read for place in places)

    def _given(self, model: GgufModel, rows: Sequence[Any]) -> Iterator[tuple[list[int], list[int]]]:
        left, step = self.most_tokens, max(1, len(rows) // self.most_rows)
        for row in rows[::step][: self.most_rows]:
            prompt, answer = asked_and_answered(model, row)
            if answer := answer[:left]:
                yield prompt, answer
            if (left := left - len(answer)) <= 0:
                return

    def _quantise(self, file: Path, groups: Sequence[Group], chosen: Mapping[str, Option]) -> None:
        """The source with these roles quantised, and all others as they are."""
        from orchestrator.models.mixture import called
        from orchestrator.stages.quantise import quantise

        types = {group.pattern: chosen.get(group.role, group.options[0]).kind for group in groups}
        quantise(Path(self.source), file, called(chosen), Path(self.importance) if self.importance else None, types)


def asked_and_answered(model: GgufModel, row: Any) -> tuple[list[int], list[int]]:
    """A training row's prompt and answer in tokens; of a text that asks nothing, its first token and the rest."""
    whole = model.tokenize(text_of(model, row))
    question: list[int] = []
    if turns := row.get("conversations"):
        asked = turns if row.get("chosen") else turns[:-1]
        if asked and all(turn["from"] in ROLES for turn in asked):
            question = model.tokenize(text_of(model, {"conversations": asked, "system": row.get("system")}))
    begins = max(1, first_difference(question, whole))
    return whole[:begins], whole[begins:]


def divergence(file: Path, given: Given, reference: Expectations) -> float:
    """The mean divergence of a file over the rows, in nats a token."""
    import numpy as np

    from orchestrator.evaluation.divergence import at_place
    from orchestrator.models.gguf import GgufModel

    starts = np.cumsum([0, *(len(answer) for _, answer in given)])

    def look(logits: Any, row: int, place: int) -> float:
        return at_place(reference, starts[row] + place, logits, given[row][1][place])[0]

    with GgufModel(file) as model:
        return float(np.mean([np.mean(places) for places in _read(model, given, look)]))


def _read(model: GgufModel, given: Given, look: Callable[[Any, int, int], Any]) -> Iterator[list[Any]]:
    return model.read_answers([prompt for prompt, _ in given], [answer for _, answer in given], look)


def summary(groups: Sequence[Group], chosen: Mapping[str, Option], budget: int, size: int) -> dict[str, Any]:
    """What was measured and chosen, and a sentence that says it."""
    tried = {
        group.role: {option.kind: {"bytes": option.bytes, "divergence": option.damage} for option in group.options}
        for group in groups
    }
    types = {role: option.kind for role, option in chosen.items()}
    whole = {option.kind for option in chosen.values()}
    told = ", ".join(f"{role.removesuffix('.weight')} {kind}" for role, kind in types.items())
    if len(whole) == 1:
        told = f"all of it fits as {whole.pop()}"
    sentence = f"{MIXED}: {megabytes(size)} of {megabytes(budget)}; {told}"
    expected = sum(option.damage for option in chosen.values())
    return {"budget": budget, "bytes": size, "types": types, "expected": expected, "tried": tried, "sentence": sentence}


def megabytes(size: int) -> str:
    """A size in units of 10⁶ bytes, rounded up, as `export.size` takes it."""
    return f"{-(-size // 100_000) / 10:g} MB"


@contextmanager
def _folder(target: Path) -> Iterator[Path]:
    folder = temporary_beside(target)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
