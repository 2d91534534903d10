"""spec.yaml → Project, or one error that names everything wrong with it, each with its line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from orchestrator.lib.errors import InputError, some
from orchestrator.lib.files import HashCache, cache_folder
from orchestrator.lib.layout import project_of
from orchestrator.spec.document import MAX_BYTES, Document, Finding, Key
from orchestrator.spec.document import parse as parse_yaml
from orchestrator.spec.editing import with_value
from orchestrator.spec.sections import Spec
from orchestrator.spec.shape import parse
from orchestrator.spec.validation import examine


@dataclass(frozen=True, slots=True)
class Project:
    """A spec that can run, the folder it belongs to, and the options of the command line; pickled with a job."""

    spec: Spec
    root: Path
    """The folder that the spec's paths are relative to."""
    path: Path
    """The spec's file."""
    text: str
    """The file's text, the overrides written into it."""
    runs_dir: Path
    """Where its runs are kept."""
    overrides: Sequence[str]
    """What `--set` said, as `key.path=value`."""
    force: Collection[str]
    """Stages or phases to repeat even if they are up to date."""
    hashes: HashCache
    chosen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Stage → what `speed: auto` chose, of a run that is made again."""


def load_project(
    path: Path,
    overrides: Sequence[str] = (),
    runs_dir: Path | None = None,
    force: Collection[str] = (),
    *,
    root: Path | None = None,
    paranoid: bool = False,
) -> Project:
    """The project of a spec file, after overrides of the form `key.path=value`.

    `root` is the folder that the spec's paths are relative to, by default the one around the file; runs are kept in its
    `runs/` unless `runs_dir` says otherwise. A `paranoid` project believes no hash that it did not compute itself.
    Raises InputError with every problem, and MissingError where LLaMA-Factory is not installed.
    """
    text = _read(path)
    document = _override(parse_yaml(text), overrides)
    root = root or project_of(path)
    if found := _problems(document, root):
        raise _refusal([f"{f'{path}:{line}' if line else '--set'}: {message}" for line, message in found])
    hashes = HashCache(cache_folder() / "hashes.json", paranoid)
    written = _overridden(text, overrides)
    return Project(parse(document.value), root, path, written, runs_dir or root / "runs", overrides, force, hashes)


def _overridden(text: str, overrides: Sequence[str]) -> str:
    """What a run keeps as its spec must be all of it, so that it can be made again."""
    if not overrides:
        return text
    from orchestrator.spec.editing import edited

    return edited(text, set_values(overrides))


def set_values(overrides: Iterable[str]) -> dict[str, Any]:
    """Dotted key → value, of overrides that `load_project` has taken."""
    return {".".join(key): value.value for key, value in map(_pair, overrides)}


def _pair(override: str) -> tuple[tuple[str, ...], Document]:
    """The key and the value of an override; an empty key where it is not written `key.path=value`."""
    name, equals, text = override.partition("=")
    key = tuple(name.strip().split("."))
    return key if equals and all(key) else (), parse_yaml(text)


def editable(path: Path) -> str:
    """The text of a spec that is YAML, so that values can be written into it, whatever else is wrong with it.

    Raises InputError with every problem.
    """
    text = _read(path)
    if found := _problems(parse_yaml(text), None):
        raise _refusal([f"{path}:{line}: {message}" for line, message in found])
    return text


def build_spec(values: Mapping[str, Any], project: Path) -> Spec:
    """The spec that plain values make, such as those of a sweep's trial. Raises InputError with every problem."""
    if found := examine(values, project):
        raise _refusal(list(map(_said, found)))
    return parse(values)


def effective(text: str) -> dict[str, Any]:
    """Dotted key → value of a spec's text, such as `train.learning_rate`; its sweep is left out.

    Of a text that this version does not take, as one of an earlier version may be, only what it says.
    """
    from pydantic import ValidationError

    written = parse_yaml(text).value
    values = dict(written) if isinstance(written, Mapping) else {}
    try:
        spec: Spec = parse({key: value for key, value in values.items() if key != "sweep"})
    except (ValidationError, TypeError):
        return dict(_flat(values, ""))
    whole = spec.model_dump(mode="json", exclude={"sweep"})
    return dict(_flat(whole | {"train": spec.training}, ""))


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


# ---- reading


def _read(path: Path) -> str:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder", f"Name the spec in it, such as {path / 'spec.yaml'}.")
        if not path.exists():
            raise InputError(f"no file {str(path)!r}", "Name a spec, or let `orchestrator init` write one.")
        if not path.is_file():  # a device may never end
            raise InputError(f"{path} is not a regular file", "Name a spec.yaml.")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES:,} bytes", "Name a spec.yaml, not a data file.")
        return _decode(path.read_bytes(), path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(path)!r}: {reason}", "Name a spec.yaml that you may read.") from None


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: the text is not UTF-8", "Save the file as UTF-8 in your editor.") from None


def _override(document: Document, overrides: Iterable[str]) -> Document:
    """The document with `--set` values in place; what they touch has line 0."""
    if document.findings and document.value is None:
        return document
    values, lines, findings = document.value, dict(document.lines), list(document.findings)
    for override in overrides:
        key, value = _pair(override)
        if not key:
            findings.append(Finding((), f"cannot read --set {override!r}; write --set train.learning_rate=1e-4", 0))
        elif value.findings:
            text = override.partition("=")[2]
            findings.append(Finding(key, f"cannot read the value {text!r}: {value.findings[0].message}", 0))
        else:
            try:
                values = with_value(values if isinstance(values, Mapping) else {}, key, value.value)
                lines = {known: line for known, line in lines.items() if known[: len(key)] != key}
                lines = {key[:size]: 0 for size in range(1, len(key) + 1)} | lines
            except ValueError as error:
                findings.append(Finding(key, f"cannot be set: {error}", 0))
    return Document(values, lines, tuple(findings))


# ---- reporting


def _problems(document: Document, project: Path | None) -> list[tuple[int, str]]:
    """Everything wrong with a spec, by line, 0 for what came from --set; without a project, with its YAML alone."""
    found = list(document.findings)
    if isinstance(document.value, Mapping):
        known = {finding.key for finding in found}
        examined = examine(document.value, project) if project else ()
        found += [finding for finding in examined if finding.key not in known]
    elif not found:
        found = [Finding((), "is not a spec; it begins with name: and data:", 1)]
    located = ((_line(finding, document.lines), _said(finding)) for finding in found)
    return sorted(dict.fromkeys(located), key=itemgetter(0))


def _line(finding: Finding, lines: Mapping[Key, int]) -> int:
    """The line of a finding: its own, or that of its key, or of the nearest one around it."""
    key = finding.key
    around = (lines[key[:size]] for size in range(len(key), -1, -1) if key[:size] in lines)
    return next(around, 1) if finding.line is None else finding.line


def _said(finding: Finding) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding.key).lstrip(".")
    return f"{key}: {finding.message}" if key else finding.message


def _refusal(found: Sequence[str]) -> InputError:
    them = "it" if len(found) == 1 else "them"
    return InputError(some(found), f"Fix {them} and run `orchestrator check`; `orchestrator schema` has every key.")
