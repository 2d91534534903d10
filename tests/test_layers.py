"""The house: imports point down, and some doors are used by one room only."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import orchestrator

ROOT = Path(orchestrator.__file__).parent

FLOORS = (
    "lib",
    "machine evaluation chat_template",
    "executors runs models",
    "spec data",
    "stages",
    "pipeline",
    "report serving",
    "sweep",
    "ui",
    "cli __main__",
)
"""From the ground up; a room may use its own floor and those below."""


def floor_of(module: str) -> int:
    room = module.split(".")[1] if "." in module else ""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms.split()), -1)


def imports(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def modules() -> list[tuple[str, Path]]:
    files = sorted(ROOT.rglob("*.py"))
    return [(".".join(("orchestrator", *file.relative_to(ROOT).with_suffix("").parts)), file) for file in files]


def test_every_room_has_a_floor() -> None:
    homeless = [name for name, _ in modules() if name != "orchestrator.__init__" and floor_of(name) < 0]
    assert homeless == []


def test_imports_point_down() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, file in modules()
        for target, line in imports(file)
        if target.startswith("orchestrator.") and floor_of(target) > floor_of(name) >= 0
    ]
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    """Not even where they are called, or for types: each can be read before those that use it."""
    known = {name.removesuffix(".__init__"): file for name, file in modules()}
    graph = {
        name: {owner for target, _ in imports(file) if (owner := _owner(target, known)) not in (None, name)}
        for name, file in known.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names them


def _owner(target: str, known: Mapping[str, Path]) -> str | None:
    """The module that an import reads: itself, or the one that defines the name."""
    return next((name for name in (target, target.rpartition(".")[0]) if name in known), None)


def test_only_process_starts_processes() -> None:
    doors = {name for name, file in modules() for target, _ in imports(file) if target.split(".")[0] == "subprocess"}
    assert doors == {"orchestrator.lib.process"}


def test_only_records_names_run_json() -> None:
    namers = {name for name, file in modules() if "run.json" in _code(file)}
    assert namers <= {"orchestrator.lib.layout"}


def _code(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value == "run.json"
    ]
    return " ".join(texts)
