"""The lock: requirements/*.txt, which name every package with its version and hashes, and no address.

`make lock` fits it to pyproject.toml with as few changes as possible, `make upgrade` takes the newest of everything.
uv resolves all of it at once, for every Python and system that we support; each part is then one file:

- base.txt: what `pip install .` needs
- build.txt: what set-up itself works with, before anything else is there
- an extra's file: what that extra needs beyond base.txt

Nothing but Python itself is needed to read it, since set-up does before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
OURS = "llamafactory-orchestrator"
BASE, BUILD = "base", "build"
ASKED = "# asks: "
"""Starts the lines of a part that repeat what pyproject.toml asked for when the part was made."""
COMPILE = ("pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header")
TORCH = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch-triton.*|nvidia-.*|cuda-.*)")
"""What another build of torch replaces or brings."""


class Unfit(Exception):
    """The lock, or what is installed, is not what it should be."""


def name_of(requirement: str) -> str:
    """The normalised name of a requirement, or of a distribution (PEP 503)."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0] if found else requirement).lower()


def stanzas(text: str) -> dict[str, str]:
    """Requirement line (`name==version ; marker`) → its lines, hashes and comments included."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", "\n" + text):
        head = block.split("\n", 1)[0].rstrip(" \\")
        if "==" in head:
            found[head] = block.rstrip("\n") + "\n"
    return found


def pins(text: str) -> dict[str, set[str]]:
    """Package → the versions that a lock names, several where markers choose."""
    versions: dict[str, set[str]] = {}
    for head in stanzas(text):
        versions.setdefault(name_of(head), set()).add(head.partition("==")[2].split()[0])
    return versions


def locked() -> dict[str, set[str]]:
    """The versions in all parts of the lock."""
    return pins("\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.txt"))))


def asked() -> dict[str, list[str]]:
    """Part of the lock → the requirements that pyproject.toml has for it."""
    import tomllib  # since Python 3.11, and an older one is to hear of it in our words

    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = told["project"]
    parts = {BASE: project["dependencies"], BUILD: told["dependency-groups"][BUILD]}
    return {**parts, **project["optional-dependencies"]}


def misfits() -> Iterator[str]:
    """How the lock differs from pyproject.toml, in one line for each requirement; nothing when it fits."""
    for part, wanted in asked().items():
        path = FOLDER / f"{part}.txt"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        made_for = {line.removeprefix(ASKED) for line in lines if line.startswith(ASKED)}
        for one in sorted(set(wanted) - made_for):
            yield f"pyproject.toml asks for {one!r}, which requirements/{part}.txt was not made for"
        for one in sorted(made_for - set(wanted)):
            yield f"requirements/{part}.txt was made for {one!r}, which pyproject.toml does not ask for"


def foreign(installed: Mapping[str, str], other_torch: bool = False) -> Iterator[str]:
    """What is installed and not in the lock. Another build of torch is let through where it was asked for."""
    versions = locked()
    for name, version in sorted(installed.items()):
        if name == OURS or version in versions.get(name, ()) or (other_torch and TORCH.fullmatch(name)):
            continue
        known = ", ".join(sorted(versions.get(name, ())))
        yield f"{name} {version} is installed; the lock has {known or 'no ' + name}"


def installed() -> dict[str, str]:
    """Package → version, of the Python that this runs in."""
    return {name_of(one.metadata["Name"]): one.version for one in metadata.distributions()}


def compiled(uv: str, upgrade: bool) -> dict[str, str]:
    """The text of each part, resolved together; nothing is written."""
    before = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.txt")))
    parts = asked()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.txt"
        whole.write_text("" if upgrade else before, encoding="utf-8")
        extras = [part for part in parts if part not in (BASE, BUILD)]
        _resolve(uv, whole, [*(f"--extra={extra}" for extra in extras), f"--group={BUILD}"])
        texts = {part: _part(uv, whole, part) for part in parts}
    base = stanzas(texts[BASE])
    own = {part: text if part in (BASE, BUILD) else _beyond(base, text) for part, text in texts.items()}
    return {part: _with_header(parts[part], text) for part, text in own.items()}


def _part(uv: str, whole: Path, part: str) -> str:
    """One part's packages at the versions of the whole, which uv takes from the file that it is to replace."""
    file = whole.with_name(f"{part}.txt")
    file.write_text(whole.read_text(encoding="utf-8"), encoding="utf-8")
    if part == BUILD:
        _resolve(uv, file, [], f"--group={BUILD}")
    else:
        _resolve(uv, file, [f"--extra={part}"] if part != BASE else [])
    text, all_pins = file.read_text(encoding="utf-8"), pins(whole.read_text(encoding="utf-8"))
    if differs := [name for name, versions in pins(text).items() if not versions <= all_pins.get(name, set())]:
        raise Unfit(f"{part}.txt would have other versions than the whole of {', '.join(differs)}")
    return text


def _resolve(uv: str, target: Path, options: Sequence[str], source: str = "pyproject.toml") -> None:
    argv = [uv, *COMPILE, *options, source, "--output-file", str(target)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unfit(done.stderr.strip())


def _beyond(base: Mapping[str, str], text: str) -> str:
    """A part without what base.txt installs in every case in which the part would."""
    own = {head: block for head, block in stanzas(text).items() if not {head, head.split(" ;")[0]} & base.keys()}
    return "".join(own.values())


def _with_header(wanted: Sequence[str], text: str) -> str:
    head = "# A part of the lock, written by `make lock` with uv; see scripts/lock.py."
    return "\n".join([head, *(ASKED + one for one in wanted), *text.splitlines()]) + "\n"


def write(texts: Mapping[str, str]) -> None:
    """Put the lock in place, without what belongs to no part any more."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        if path.stem not in texts:
            path.unlink()
    for part, text in texts.items():
        (FOLDER / f"{part}.txt").write_text(text, encoding="utf-8")


def changes(before: Mapping[str, set[str]], after: Mapping[str, set[str]]) -> list[str]:
    """One line for each package that came, went or changed its version."""

    def said(versions: set[str] | None) -> str:
        return " and ".join(sorted(versions)) if versions else "none"

    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {said(before.get(name))} → {said(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def renew(uv: str, upgrade: bool) -> None:
    """Write the lock anew and say what changed."""
    before = locked()
    write(compiled(uv, upgrade))
    print("\n".join(changes(before, locked())) or "nothing changed")


def upgraded(uv: str) -> None:
    """The newest of everything, kept only when the tests pass in it. Raises Unfit, with the old lock back in place."""
    old = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")}
    renew(uv, upgrade=True)
    if subprocess.run([shutil.which("make") or "make", "test"], cwd=ROOT).returncode != 0:
        write(old)
        raise Unfit(
            "the tests do not pass with the newest versions: the old lock is back; `make setup` goes back to it"
        )


def verify(other_torch: bool) -> None:
    """Raise Unfit when the lock does not fit pyproject.toml, or something is installed that it does not have."""
    if problems := [*misfits(), *foreign(installed(), other_torch)]:
        raise Unfit("\n".join(problems))


def main() -> int:
    """0 when all is well, 1 when it is not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--renew", action="store_true", help="fit the lock to pyproject.toml")
    action.add_argument("--upgrade", action="store_true", help="take the newest, and run the tests")
    action.add_argument("--verify", action="store_true", help="is what is installed what the lock has?")
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--other-torch", action="store_true", help="torch is of PyTorch's own index")
    told = parser.parse_args()
    try:
        if told.verify:
            verify(told.other_torch)
        elif told.upgrade:
            upgraded(told.uv)
        else:
            renew(told.uv, upgrade=False)
    except Unfit as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
