"""What the installed LLaMA-Factory accepts, read from its source: importing it would take seconds and load torch."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import cache_folder, read_json, write_text

TRAINING = ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments")
"""The dataclasses that `llamafactory-cli train` parses: `_TRAIN_ARGS` in llamafactory/hparams/parser.py."""
INFERENCE = ("ModelArguments", "DataArguments", "FinetuningArguments", "GeneratingArguments")
"""Those that export, chat and api parse: `_INFER_ARGS` there."""

_SOURCES = {
    "llamafactory": (
        "hparams/model_args.py",
        "hparams/data_args.py",
        "hparams/training_args.py",
        "hparams/finetuning_args.py",
        "hparams/generating_args.py",
        "extras/constants.py",
    ),
    "transformers": ("training_args.py", "training_args_seq2seq.py", "trainer_utils.py", "debug_utils.py"),
}
_KINDS = {"str": "text", "path": "text", "int": "int", "float": "float", "bool": "bool", "dict": "dict", "list": "list"}
_CACHE_FORMAT = b"1"


@dataclass(frozen=True, slots=True)
class Argument:
    """One key of a LLaMA-Factory configuration."""

    name: str
    kinds: tuple[str, ...]
    """Which of text, int, float, bool, dict, list and null it may be."""
    choices: tuple[str, ...]
    """The texts it may be; empty where any will do."""
    default: Any
    """None also where the source computes it."""
    help: str
    source: str
    """The file that declares it, such as `transformers/training_args.py`."""


def arguments() -> Mapping[str, Argument]:
    """Every key that `llamafactory-cli train` accepts. Raises MissingError where LLaMA-Factory is not installed."""
    return _schema()["train"]


def inference_arguments() -> Mapping[str, Argument]:
    """Every key that export, chat and api accept: no trainer, hence no `output_dir`. Raises MissingError as well."""
    return _schema()["inference"]


@cache
def _schema() -> Mapping[str, Mapping[str, Argument]]:
    memory = cache_folder() / f"arguments-{_fingerprint()}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # lost or broken: read the source again
        known = read_json(memory)
        return {part: _restore(known[part]) for part in ("train", "inference")}
    schema = _read()
    with contextlib.suppress(OSError):
        write_text(memory, json.dumps({part: [asdict(a) for a in table.values()] for part, table in schema.items()}))
    return schema


def _restore(entries: Iterable[Mapping[str, Any]]) -> dict[str, Argument]:
    return {e["name"]: Argument(**{**e, "kinds": tuple(e["kinds"]), "choices": tuple(e["choices"])}) for e in entries}


@cache
def package_folder(package: str) -> Path:
    """Where a package's source lies, found without importing it. Raises MissingError where it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingError(f"{package} is not installed", "Run `make setup`, or `pip install llamafactory`.")
    return Path(found.origin).parent


@cache
def tool_utils(name: str) -> Any:
    """LLaMA-Factory's reader and writer of one way to write calls.

    Its module needs the standard library only, so it is loaded by itself: importing the package would load torch.
    """
    source = package_folder("llamafactory") / "data/tool_utils.py"
    described = importlib.util.spec_from_file_location("llamafactory_tool_utils", source)
    if described is None or described.loader is None:
        raise MissingError(f"no {source.name} in the installed llamafactory", "Run `make setup`.")
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module  # where dataclasses look for their own module
    described.loader.exec_module(module)
    return module.get_tool_utils(name)


def _fingerprint() -> str:
    """A hash of what would be read: it tells versions apart, and an editable installation from itself yesterday."""
    texts = [file.read_bytes() for package in _SOURCES for file in _files(package).values()]
    return hashlib.sha256(b"\0".join([_CACHE_FORMAT, *texts])).hexdigest()[:16]


def _files(package: str) -> dict[str, Path]:
    """The sources of a package that are there: the name for people → the file."""
    files = {f"{package}/{name}": package_folder(package) / name for name in _SOURCES[package]}
    return {name: file for name, file in files.items() if file.is_file()}


# ---- reading the source


def _read() -> Mapping[str, Mapping[str, Argument]]:
    classes = _Classes()
    for package in _SOURCES:
        for name, file in _files(package).items():
            classes.collect(package, name, ast.parse(file.read_bytes()))
    if missing := [name for name in TRAINING if classes.find("llamafactory", name) is None]:
        raise MissingError(
            f"the installed LLaMA-Factory declares no {', '.join(missing)}", "Install llamafactory>=0.9.5,<0.10."
        )
    parts = {"train": TRAINING, "inference": INFERENCE}
    return {
        part: {a.name: a for name in names for a in classes.fields("llamafactory", name)}
        for part, names in parts.items()
    }


@dataclass(frozen=True, slots=True)
class _Class:
    """A class, and where its names are looked up first."""

    package: str
    file: str
    node: ast.ClassDef


class _Classes:
    """The classes of both packages; each package's own come first, since both declare `TrainingArguments`."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Class] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    def collect(self, package: str, file: str, tree: ast.Module) -> None:
        """Remember what a parsed file declares."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self._known[package, node.name] = _Class(package, file, node)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                for target in node.targets:  # `BaseTrainingArguments = Seq2SeqTrainingArguments`
                    if isinstance(target, ast.Name):
                        self._aliases[package, target.id] = node.value.id

    def find(self, package: str, name: str) -> _Class | None:
        """The class that a name means inside a package."""
        name = self._aliases.get((package, name), name)
        return self._known.get((package, name)) or self._known.get(("transformers", name))

    def fields(self, package: str, name: str) -> Iterator[Argument]:
        """The dataclass fields of a class, those of its bases first: a later one replaces an earlier one."""
        found = self.find(package, name)
        if found is None:
            return
        for base in reversed(found.node.bases):
            if isinstance(base, ast.Name):
                yield from self.fields(found.package, base.id)
        for statement in found.node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
                settings = _settings(statement.value)
                if _literal(settings.get("init")) is not False:
                    yield self._argument(found, statement.target.id, statement.annotation, settings)

    def _argument(self, owner: _Class, name: str, annotation: ast.expr, settings: Mapping[str, ast.expr]) -> Argument:
        about = settings.get("metadata")
        metadata = _settings(about) if isinstance(about, ast.Dict) else {}
        found = list(dict.fromkeys(self._alternatives(owner.package, annotation)))
        return Argument(
            name=name,
            kinds=tuple(dict.fromkeys(kind for kind, _ in found)),
            choices=tuple(_literal(metadata.get("choices")) or [choice for _, choice in found if choice]),
            default=self._default(owner.package, settings.get("default")),
            help=_literal(metadata.get("help")) or "",
            source=owner.file,
        )

    def _alternatives(self, package: str, node: ast.expr) -> Iterator[tuple[str, str]]:
        """(kind, choice) for every alternative of an annotation; the choice is "" where any value will do."""
        match node:
            case ast.BinOp(left=left, right=right):
                yield from self._alternatives(package, left)
                yield from self._alternatives(package, right)
            case ast.Tuple(elts=parts):
                for part in parts:
                    yield from self._alternatives(package, part)
            case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
                values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                yield from (("text", v) if isinstance(v, str) else ("bool", "") for v in map(_literal, values))
            case ast.Subscript(value=ast.Name(id="Optional" | "Union" as name), slice=inner):
                yield from self._alternatives(package, inner)
                if name == "Optional":
                    yield "null", ""
            case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name) if name.lower() in _KINDS:
                yield _KINDS[name.lower()], ""
            case ast.Constant(value=None):
                yield "null", ""
            case ast.Name(id=name):
                yield from (("text", choice) for choice in self._members(package, name).values())

    def _members(self, package: str, name: str) -> dict[str, str]:
        """The members of an Enum of texts; none for any other class."""
        found = self.find(package, name)
        return {
            target.id: value
            for statement in (found.node.body if found else [])
            if isinstance(statement, ast.Assign) and isinstance(value := _literal(statement.value), str)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }

    def _default(self, package: str, node: ast.expr | None) -> Any:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self._members(package, node.value.id).get(node.attr)
        return _literal(node)


def _settings(node: ast.expr) -> dict[str, ast.expr]:
    """The keywords of `field(…)`, or the entries of a dict with text keys."""
    if isinstance(node, ast.Call):
        return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if isinstance(node, ast.Dict):
        return {_literal(key): value for key, value in zip(node.keys, node.values, strict=True)}
    return {"default": node}


def _literal(node: ast.expr | None) -> Any:
    """The value of a literal; None for anything that is computed."""
    with contextlib.suppress(ValueError, TypeError):
        return ast.literal_eval(node) if node is not None else None
    return None
