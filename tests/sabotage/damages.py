"""What can befall a file that lies still: one byte, a cut, an exchange, and with or without a trace in its time."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ONE_BYTE = ("one byte, its time kept", "one byte")
OTHERS = ("deleted", "emptied", "cut in half", "swapped with another")
KINDS = (*ONE_BYTE, *OTHERS)


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage to one file of a run, by its path below the run's folder."""

    kind: str
    path: str
    at: float = 0.0
    """Which byte, as a part of the file."""
    flip: int = 1
    other: str = ""
    """The file it is exchanged with, of which nothing else is asked."""

    def inflict(self, folder: Path, pristine: Path) -> None:
        """Do it to a run, of which `pristine` is a copy. What is written is a new file: the old one may be linked."""
        file, status = folder / self.path, (folder / self.path).stat()
        content = file.read_bytes()
        file.unlink()
        if self.kind == "deleted":
            return
        file.write_bytes(self._damaged(content, pristine))
        if self.kind == ONE_BYTE[0]:
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _damaged(self, content: bytes, pristine: Path) -> bytes:
        if self.kind in ONE_BYTE:
            place = int(self.at * len(content))
            return content[:place] + bytes([content[place] ^ self.flip]) + content[place + 1 :]
        if self.kind == "cut in half":
            return content[: len(content) // 2]
        return (pristine / self.other).read_bytes() if self.other else b""


def files_of(folder: Path) -> list[str]:
    """The files of a run, but for the empty ones: there is nothing to damage in them but to remove them."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size)
    return [str(path.relative_to(folder)) for path in found]


def single_bytes(files: Sequence[str], count: int, chance: random.Random) -> Iterator[Damage]:
    """So many changed bytes, spread evenly over all files, every other round of them without a trace in the times."""
    for number in range(count):
        path, kind = files[number % len(files)], ONE_BYTE[number // len(files) % 2]
        yield Damage(kind, path, chance.random(), chance.randrange(1, 256))


def the_rest(files: Sequence[str], folder: Path, chance: random.Random) -> Iterator[Damage]:
    """Every file deleted, emptied, cut, and exchanged with another that has other bytes."""
    contents = {path: (folder / path).read_bytes() for path in files}
    for path in files:
        yield from (Damage(kind, path) for kind in OTHERS[:3])
        others = [other for other in files if contents[other] != contents[path]]
        yield Damage(OTHERS[3], path, other=chance.choice(others))


def put_back(damage: Damage, pristine: Path, folder: Path) -> None:
    """Undo a damage from a copy of the run."""
    shutil.copy2(pristine / damage.path, folder / damage.path)
