"""What must be true of a spec beyond its types: names that are known, files that are there, parts that fit together."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from orchestrator.data import hub
from orchestrator.errors import InputError
from orchestrator.spec.document import Finding
from orchestrator.spec.sections import Data, Export, Model
from orchestrator.spec.wording import did_you_mean

CONVERTER = "convert_hf_to_gguf.py"


def check_model(model: Model, project: Path) -> Iterator[Finding]:
    """The base model can be one, and LLaMA-Factory has the template. Nothing is downloaded."""
    from orchestrator import models
    from orchestrator.models import builtin
    from orchestrator.models.hub import parse

    source, _, name = model.base.partition(":")
    try:
        if source == "builtin":
            builtin.folder(name)
        elif source in ("hf", "modelscope"):
            parse(model.base)
        elif source == "run":
            pass  # which runs there are is not a fact of the spec; the plan looks
        else:
            models.require_model_folder(_folder(model.base, project), model.base)
    except InputError as error:
        yield Finding(("model", "base"), f"{error.message.removeprefix('model.base: ')}. {error.hint}")
    if model.template != "auto":
        from orchestrator.chat_template.registry import template_names

        if model.template not in (known := template_names()):
            guess = did_you_mean(model.template, known) or f"; LLaMA-Factory has {len(known)}, or write auto"
            yield Finding(("model", "template"), f"unknown template {model.template!r}{guess}")


def check_data(data: Data, project: Path) -> Iterator[Finding]:
    """Every file is there and in reach, and there is exactly one source of held-out rows."""
    for name in ("train", "eval", "test"):
        value = getattr(data, name)
        files = (value,) if isinstance(value, str) else value or ()
        if value == ():
            yield Finding(("data", name), "names no file")
        for index, file in enumerate(files):
            if problem := _unreadable(file, project):
                yield Finding(("data", name) if isinstance(value, str) else ("data", name, index), problem)
    if data.eval is None and data.eval_fraction is None:
        yield Finding(
            ("data",), "names no held-out rows; add eval: FILE, or eval_fraction: 0.2 to hold out some of train"
        )
    if data.eval is not None and data.eval_fraction is not None:
        yield Finding(("data", "eval_fraction"), "and eval exclude each other; keep one")
    count = 1 if isinstance(data.train, str) else len(data.train)
    if data.weights is not None and len(data.weights) != count:
        yield Finding(("data", "weights"), f"expected {count}, one for each training file, got {len(data.weights)}")
    if data.weights is not None and not all(weight > 0 for weight in data.weights):
        yield Finding(("data", "weights"), "expected numbers above 0")


def _unreadable(name: str, project: Path) -> str | None:
    """Why a data file cannot be used. An absolute path is a decision, one that climbs out an accident."""
    if name.startswith(hub.PREFIX):
        return None if hub.is_reference(name) else f"cannot read {name!r}; write hf:ORG/NAME:SPLIT"
    path = project / name
    if not Path(name).is_absolute() and not Path(os.path.normpath(path)).is_relative_to(project):
        return f"{name!r} leads out of the project {project}; move the file inside, or give its absolute path"
    try:
        if path.is_dir():
            return f"{name!r} is a folder; name the files in it"
        return None if path.is_file() else f"no file {name!r} in {project}{_similar(path)}"
    except OSError as error:  # a name that is too long
        return f"cannot read a file named {name[:40]!r}…: {error.strerror}"


def _similar(path: Path) -> str:
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, beside)


def check_export(export: Export, project: Path) -> Iterator[Finding]:
    """No file is made twice."""
    for name, count in Counter(export.gguf).items():
        if count > 1:
            yield Finding(("export", "gguf"), f"{name} stands {count} times in the list; keep one")


def check_llama_cpp(folder: str, project: Path) -> Iterator[Finding]:
    """The folder is a checkout of llama.cpp."""
    path = _folder(folder, project)
    if not (path / CONVERTER).is_file():
        what = f"has no {CONVERTER}" if path.is_dir() else "does not exist"
        yield Finding(("llama_cpp",), f"the folder {folder!r} {what}; name a checkout of llama.cpp, or leave it out")


def _folder(name: str, project: Path) -> Path:
    """Where a folder of the spec lies; `~nobody` is left as it is, which pathlib's own expansion raises on."""
    return project / os.path.expanduser(name)  # noqa: PTH111
