"""The tuned model's answers as a GGUF is given them: drafts of its own answers, and what it makes of each token.

`diverge` has a GGUF read them. Where they are there before the GGUF is asked, `ask` gives them to it as drafts. So it
reads them, too; what it makes of them is kept until `diverge` wants it, and the GGUF is not loaded again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import sha256, sha256_of, temporary_beside

if TYPE_CHECKING:
    from orchestrator.evaluation.divergence import Expectations
    from orchestrator.models.draft import Draft

UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, InputError)
"""What is raised for a file that is missing, cut off, or another one."""
ARRAYS = ("tokens", "logs", "rest", "chosen")
"""What an archive of expectations holds."""


class Place(NamedTuple):
    """What a GGUF makes of a token that is read."""

    divergence: float
    """From the reference, in nats."""
    log_probability: float
    """Of the token, in nats."""
    expected: tuple[Any, ...] | None
    """What the GGUF expects there, where others are held against it."""


Places = dict[int, list[Place]]
"""Number of a row → the places of the tokens that are read, of its prompt first."""


@dataclass(frozen=True)
class Given:
    """The answers, and what they are read for."""

    answers: Path
    reference: Path
    """What the reference expects."""
    expects: bool
    """Whether what the GGUF expects is wanted, too."""

    @property
    def is_whole(self) -> bool:
        """Whether it can be read. It may not exist yet, and a stage that only uses it to save time must not fail."""
        try:
            return len(self.expectations.chosen) == self.starts[-1]
        except UNREADABLE:
            return False

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """{id, prompt, answer, own}, as layout.GIVEN has them."""
        from orchestrator.evaluation.rows import read_objects

        return read_objects(self.answers)

    @cached_property
    def expectations(self) -> Expectations:
        """The reference's, of all rows, one behind the other."""
        return load(self.reference)

    @cached_property
    def tokens(self) -> list[list[int]]:
        """Of each row those that are read."""
        from orchestrator.evaluation.divergence import tokens_read

        return [tokens_read(row) for row in self.rows]

    @cached_property
    def starts(self) -> list[int]:
        """Where each row begins in the expectations, and where the last one ends."""
        import numpy as np

        found: list[int] = np.cumsum([0, *map(len, self.tokens)]).tolist()
        return found

    def look(self, logits: Any, number: int, place: int) -> Place:
        """What logits make of a token that is read."""
        from orchestrator.evaluation.divergence import at_place, expectation

        token = self.tokens[number][place]
        expected = expectation(logits, token, self.expectations.tokens.shape[1]) if self.expects else None
        return Place(*at_place(self.expectations, self.starts[number] + place, logits, token), expected)

    def drafts(
        self, asked: Sequence[Mapping[str, Any]], prompts: Sequence[Sequence[int]], seen: Places
    ) -> dict[int, Draft]:
        """Index of a prompt → its draft, where the tuned model was asked it in the same tokens; reading one fills in
        `seen`."""
        from orchestrator.models.draft import Draft

        def look(number: int, logits: Any, place: int) -> None:
            seen.setdefault(number, []).append(self.look(logits, number, place))

        numbers = {row["id"]: number for number, row in enumerate(self.rows)}
        found = {}
        for index, (row, prompt) in enumerate(zip(asked, prompts, strict=True)):
            number = numbers.get(row["id"])
            if number is not None and self.rows[number]["prompt"] == list(prompt):
                one = self.rows[number]
                found[index] = Draft(one["answer"], partial(look, number), one.get("own", ()))
        return found

    def key(self, gguf: str) -> str:
        """What the places depend on; `gguf` is the identity of the GGUF."""
        return sha256_of(json.dumps([gguf, sha256(self.answers), sha256(self.reference), self.expects]))

    def keep(self, file: Path, key: str, seen: Places) -> None:
        """Write places down, with those that are there under the same key."""
        import numpy as np

        places = [(number, place) for number, of in {**self.kept(file, key), **seen}.items() for place in of]
        growing = temporary_beside(file).with_suffix(".npz")
        np.savez(
            growing,
            key=np.array(key),
            numbers=[number for number, _ in places],
            nats=[place.divergence for _, place in places],
            likelihoods=[place.log_probability for _, place in places],
            **_arrays([place.expected for _, place in places], self.expects),
        )
        growing.replace(file)

    def kept(self, file: Path, key: str) -> Places:
        """The places that were written down under a key; none where there is no such file."""
        import numpy as np

        try:
            with np.load(file, allow_pickle=False) as archive:
                return self._places(archive) if archive["key"].item() == key else {}
        except UNREADABLE:
            return {}

    def _places(self, archive: Mapping[str, Any]) -> Places:
        numbers, nats, logs = (archive[name].tolist() for name in ("numbers", "nats", "likelihoods"))
        expected = zip(*(archive[name] for name in ARRAYS), strict=True) if self.expects else repeat(None)
        found: Places = {}
        for number, place in zip(numbers, map(Place, nats, logs, expected), strict=True):
            found.setdefault(number, []).append(place)
        return found


def _arrays(expected: Sequence[tuple[Any, ...] | None], expects: bool) -> dict[str, Any]:
    from orchestrator.evaluation.divergence import expectations

    if not expects:
        return {}
    found = expectations(place for place in expected if place is not None)
    return {name: getattr(found, name) for name in ARRAYS}


def save(file: Path, found: Expectations) -> None:
    """Write expectations as a NumPy archive."""
    import numpy as np

    np.savez(file, **{name: getattr(found, name) for name in ARRAYS})


def load(file: Path) -> Expectations:
    """What `save` wrote."""
    import numpy as np

    from orchestrator.evaluation.divergence import Expectations

    with np.load(file, allow_pickle=False) as archive:
        return Expectations(*(archive[name] for name in ARRAYS))
