"""spec.yaml → Spec, or one error that names everything wrong with it, each with its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.errors import InputError
from orchestrator.layout import project_of
from orchestrator.spec.document import MAX_BYTES, Document, Finding, Key
from orchestrator.spec.document import parse as parse_yaml
from orchestrator.spec.keys import with_value
from orchestrator.spec.sections import Spec
from orchestrator.spec.validation import examine, parse

_SHOWN = 8


class Problem(NamedTuple):
    """Something wrong with a spec."""

    line: int
    """From 1; 0 for what came from --set."""
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A spec that can run, and where it came from."""

    spec: Spec
    project: Path
    """The folder that its paths are relative to."""
    path: Path
    lines: Mapping[str, int]
    """Dotted key → its line in the file."""
    text: str
    """The file's text, the overrides written into it."""


def load_spec(path: Path, overrides: Sequence[str] = (), project: Path | None = None) -> LoadedSpec:
    """The spec in a file, after overrides of the form `key.path=value`; its paths are relative to its project.

    Raises InputError with every problem, and MissingError where LLaMA-Factory is not installed.
    """
    text = _read(path)
    document = _override(parse_yaml(text), overrides)
    project = project or project_of(path)
    if found := _problems(document, project):
        raise InputError(_listing(found, path), _hint(len(found)))
    lines = {_dotted(key): line for key, line in document.lines.items() if key}
    return LoadedSpec(parse(document.value), project, path, lines, _overridden(text, overrides))


def _overridden(text: str, overrides: Sequence[str]) -> str:
    """What a run keeps as its spec must be all of it, so that it can be made again."""
    if not overrides:
        return text
    from orchestrator.spec.editing import edited

    parts = [override.partition("=") for override in overrides]
    return edited(text, {name.strip(): parse_yaml(value).value for name, _, value in parts})


def problems(path: Path, overrides: Sequence[str] = ()) -> list[Problem]:
    """Everything wrong with the spec in a file, by line. Raises InputError only for a file that cannot be read."""
    return _problems(_override(parse_yaml(_read(path)), overrides), project_of(path))


def build_spec(values: Mapping[str, Any], project: Path) -> Spec:
    """The spec that plain values make, such as those of a sweep's trial. Raises InputError with every problem."""
    if found := [Problem(0, _dotted(finding.key), finding.message) for finding in examine(values, project)]:
        raise InputError("\n".join(f"{key}: {message}" for _, key, message in found[:_SHOWN]), _hint(len(found)))
    return parse(values)


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
        name, equals, text = override.partition("=")
        key = tuple(name.strip().split("."))
        value = parse_yaml(text)
        if not equals or not all(key):
            findings.append(Finding((), f"cannot read --set {override!r}; write --set train.learning_rate=1e-4", 0))
        elif value.findings:
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


def _problems(document: Document, project: Path) -> list[Problem]:
    found = list(document.findings)
    if isinstance(document.value, Mapping):
        known = {finding.key for finding in found}
        found += [finding for finding in examine(document.value, project) if finding.key not in known]
    elif not found:
        found = [Finding((), "is not a spec; it begins with name: and data:", 1)]
    lines = (_line(f.key, document.lines) if f.line is None else f.line for f in found)
    located = [Problem(line, _dotted(f.key), f.message) for line, f in zip(lines, found, strict=True)]
    return sorted(dict.fromkeys(located), key=lambda problem: problem.line)


def _line(key: Key, lines: Mapping[Key, int]) -> int:
    """The line of a key, or of the nearest one around it."""
    return next((lines[key[:size]] for size in range(len(key), -1, -1) if key[:size] in lines), 1)


def _dotted(key: Key) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def _listing(found: Sequence[Problem], path: Path) -> str:
    shown = [
        f"{f'{path}:{line}' if line else '--set'}: {f'{key}: ' if key else ''}{message}"
        for line, key, message in found[:_SHOWN]
    ]
    return "\n".join([*shown, *([f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])


def _hint(count: int) -> str:
    return f"Mend {'it' if count == 1 else 'them'} and run `orchestrator check`; `orchestrator schema` has every key."
