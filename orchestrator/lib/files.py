"""Files that are either whole or not there, hashes that are computed once, and the cache that projects share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

CHUNK = 1 << 20
SMALL = 1 << 20
"""Files below so many bytes are hashed faster than remembered."""
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
"""Tells machines that share a disk apart."""


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old text or the new one, never half of it.

    What is not `durable` does not wait for the disk: it may be lost with the power, but not with the process.
    """
    temporary = temporary_beside(path)
    try:
        with _opened(temporary) as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _opened(path: Path) -> TextIO:
    """A new text file. Its folder is made where it is missing, which is seldom."""
    try:
        return path.open("w", encoding="utf-8", newline="\n")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8", newline="\n")


def temporary_beside(path: Path) -> Path:
    """Where something grows that is renamed to `path` when it is whole; the name tells which process is at it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{HOST}-{os.urandom(4).hex()}.tmp")


def remove_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Remove what killed processes left of `temporary_beside`; what living ones, or other machines, are at stays."""
    for path in folder.glob(pattern):
        owner, _, rest = path.name.split(".")[-2].partition("-")
        if not owner.isdigit() or not rest.startswith(HOST) or _lives(int(owner)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    import psutil  # there are leftovers after an accident only

    return bool(psutil.pid_exists(process))


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """`write_text` of a value as indented JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n", durable)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link, or a copy where the disk has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def from_yaml(text: str) -> Any:
    """The value of a YAML text of ours, as LLaMA-Factory reads it; with libyaml in a tenth of the time."""
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506


def read_json_lines(path: Path, growing: bool = False) -> list[Any]:
    r"""The values of a file that holds one to a line; blank lines are skipped.

    Lines end at "\n" only: a text in JSON may hold U+2028 and its kin as they are, where `str.splitlines` cuts too.
    In a `growing` file a line that is not whole yet is left out.
    """
    return list(_parsed(path.read_text(encoding="utf-8").split("\n"), growing))


def _parsed(lines: Iterable[str], growing: bool) -> Iterator[Any]:
    for line in filter(str.strip, lines):
        try:
            yield json.loads(line)
        except ValueError:
            if not growing:
                raise


def sha256_of(text: str) -> str:
    """The sha256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make sure that a finished file is on the disk before anything says so."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


class HashCache:
    """Hashes by path, size, inode and the times of the last change: gigabytes are read once, not at every command.

    The second time, st_ctime, is the system's own: a program that changes a file and puts its modification time back
    cannot put that one back.
    """

    def __init__(self, file: Path | None = None, paranoid: bool = False, trusting: bool = True) -> None:
        """`file` keeps what was learned; without one it is forgotten."""
        self._file = file
        self._paranoid = paranoid
        self._trusting = trusting
        self._read: set[str] = set()
        self.believed: set[str] = set()
        """Files that `matches` took on trust."""
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if file is not None:
            self._known = _kept(file)

    def __reduce__(self) -> tuple[type[HashCache], tuple[Path | None, bool, bool]]:
        return HashCache, (self._file, self._paranoid, self._trusting)  # another process reads what it needs anew

    def sha256(self, path: Path) -> str:
        """The hash of a file, from memory unless its status changed. A paranoid cache remembers what it read itself."""
        status = path.stat()
        if status.st_size < SMALL:
            return sha256(path)
        key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._known.get(key)
        if known and known[:-1] == stamp and (key in self._read or not self._paranoid):
            return str(known[-1])
        digest = sha256(path)
        self._known[key] = [*stamp, digest]
        self._read.add(key)
        self._changed = True
        return digest

    def matches(self, path: Path, digest: str) -> bool:
        """Whether a file's contents have this hash. A trusting cache believes a large one that was never read here."""
        trusting = self._trusting and not self._paranoid
        if trusting and path.stat().st_size >= SMALL and str(path.resolve()) not in self._known:
            self.believed.add(str(path))
            return True
        return self.sha256(path) == digest

    def save(self) -> None:
        """Keep what was learned; several tools may do so at once, the last one wins."""
        if self._file is not None and self._changed:
            with contextlib.suppress(OSError):
                remove_leftovers(self._file.parent)
                write_text(self._file, json.dumps(dict(self._known)))  # a copy: the trials of a sweep go on hashing
            self._changed = False


def _kept(file: Path) -> dict[str, list[Any]]:
    with contextlib.suppress(OSError, ValueError, TypeError):  # a lost cache costs time, nothing else
        return {key: list(entry) for key, entry in dict(read_json(file)).items()}
    return {}


def cache_folder() -> Path:
    """The tool's cache: ORCHESTRATOR_CACHE, else the platform's own place for caches."""
    if chosen := os.environ.get("ORCHESTRATOR_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("orchestrator")


def nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes when it does not.

    Two builders at once are harmless: the later one finds the target in place and drops its own copy.
    """
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield temporary
        temporary.chmod(0o755)
        if not target.exists():
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
