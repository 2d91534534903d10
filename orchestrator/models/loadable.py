"""Models that the installed LLaMA-Factory cannot load, which shows only when a training starts: found in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.llamafactory import package_folder
from orchestrator.models.tokenizer_files import json_object

LOADING = "model/model_utils/attention.py"
"""Where LLaMA-Factory treats kinds of models apart while it loads them."""


def require_loadable(folder: Path, quoted: str) -> None:
    """Raise InputError where loading the model needs something of transformers that the installed one lacks."""
    kind = str(json_object(folder / "config.json").get("model_type"))
    if name := next(lacking(kind), None):
        factory, transformers = metadata.version("llamafactory"), metadata.version("transformers")
        raise InputError(
            f"model.base: LLaMA-Factory {factory} cannot load {quoted!r} ({kind}): it asks transformers for {name}, "
            f"which {transformers} does not have",
            "The fault is LLaMA-Factory's, and no setting helps: choose another model, or a release that mends it.",
        )


def lacking(kind: str) -> Iterator[str]:
    """What LLaMA-Factory imports from transformers for a `model_type` alone, and transformers does not define."""
    tree = ast.parse((package_folder("llamafactory") / LOADING).read_bytes())
    for branch in ast.walk(tree):
        if isinstance(branch, ast.If) and _is_of(branch.test, kind):
            imports = [node for part in branch.body for node in ast.walk(part) if isinstance(node, ast.ImportFrom)]
            yield from (f"{one.module}.{each.name}" for one in imports for each in one.names if _absent(one, each.name))


def _is_of(test: ast.expr, kind: str) -> bool:
    """Whether a condition is `getattr(config, "model_type", None) == KIND`."""
    match test:
        case ast.Compare(left=ast.Call(args=[_, ast.Constant(value="model_type"), *_]), ops=[ast.Eq()]):
            return isinstance(right := test.comparators[0], ast.Constant) and right.value == kind
    return False


def _absent(statement: ast.ImportFrom, name: str) -> bool:
    """Whether a module of transformers, read and not imported, nowhere defines a function or class of the name."""
    package, _, inside = (statement.module or "").partition(".")
    file = package_folder("transformers") / f"{inside.replace('.', '/')}.py"
    if package != "transformers" or not file.is_file():
        return False
    defined = ast.walk(ast.parse(file.read_bytes()))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return name not in {node.name for node in defined if isinstance(node, kinds)}
