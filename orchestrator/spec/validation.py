"""Everything that is wrong with a spec beyond its types: unknown names, missing files, parts that do not fit."""

from __future__ import annotations

import json
import os.path
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.data import hub
from orchestrator.lib.errors import InputError
from orchestrator.lib.section import Section
from orchestrator.lib.training_kinds import TRAINING_KINDS
from orchestrator.spec.document import Finding, did_you_mean, one_of
from orchestrator.spec.export import NEEDS_IMPORTANCE, Export
from orchestrator.spec.launching import check_launch
from orchestrator.spec.sections import AUTO, KEEP, Data, Evaluate, Launch, Model, Sweep, with_defaults
from orchestrator.spec.shape import misshapen
from orchestrator.spec.sweeping import check_sweep
from orchestrator.spec.training import check_training

if TYPE_CHECKING:
    from orchestrator.evaluation.own import OwnMetric

CONVERTER = "convert_hf_to_gguf.py"


def check_model(model: Model, project: Path) -> Iterator[Finding]:
    """The base model can be one, and LLaMA-Factory has the template. Nothing is downloaded."""
    from orchestrator.models import builtin, sources
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
            sources.require_model_folder(_folder(model.base, project), model.base)
    except InputError as error:
        yield Finding(("model", "base"), f"{error.message.removeprefix('model.base: ')}. {error.hint}")
    if model.template != "auto":
        yield from _check_template(model.template)


def _check_template(given: str) -> Iterator[Finding]:
    from orchestrator.chat_template import tool_formats
    from orchestrator.chat_template.registry import TemplateName, template_names

    name = TemplateName.of(given)
    if str(name) != given:
        yield Finding(("model", "template"), f"no tool format behind the + of {given!r}")
    if name.template not in (known := template_names()):
        guess = did_you_mean(name.template, known) or f"; LLaMA-Factory has {len(known)}, or write auto"
        yield Finding(("model", "template"), f"unknown template {name.template!r}{guess}")
    if name.tool_format and name.tool_format not in (formats := tool_formats.known()):
        choices = did_you_mean(name.tool_format, formats) or f"; choose one of {', '.join(formats)}"
        yield Finding(("model", "template"), f"unknown tool format {name.tool_format!r} behind the +{choices}")


def check_data(data: Data, project: Path) -> Iterator[Finding]:
    """Every file is there and in reach, and there is exactly one source of held-out rows."""
    for name in ("train", "eval", "test", "validation"):
        value = getattr(data, name)
        if name == "validation" and (value == AUTO or isinstance(value, float)):
            continue
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


def check_evaluate(evaluate: Evaluate, project: Path) -> Iterator[Finding]:
    """The functions of `metrics` are there, none has the name of another metric, and running them is allowed."""
    if not evaluate.metrics:
        return
    from orchestrator.evaluation.own import OwnMetric

    if not evaluate.trust_code:
        yield Finding(("evaluate", "metrics"), "is code: read it, then allow it with evaluate.trust_code: true")
    own = [OwnMetric.of(text) for text in evaluate.metrics]
    for index, one in enumerate(own):
        for problem in _wrong_metric(one, [other.function for other in own[:index]], project):
            yield Finding(("evaluate", "metrics", index), problem)


def _wrong_metric(one: OwnMetric, earlier: Collection[str], project: Path) -> Iterator[str]:
    from orchestrator.evaluation.metric import METRICS
    from orchestrator.evaluation.own import functions

    if not one.file.endswith(".py"):
        yield f"cannot be {str(one)!r}; write FILE.py:FUNCTION"
        return
    if problem := _unreadable(one.file, project):
        yield problem
        return
    try:
        defined = functions((project / one.file).read_text(encoding="utf-8"))
    except (InputError, OSError, UnicodeDecodeError) as error:
        yield f"{one.file} {error}"
        return
    if one.function not in defined:
        guess = did_you_mean(one.function, defined) or f"; it defines {one_of(defined) if defined else 'none'}"
        yield f"no function {one.function!r} in {one.file}{guess}"
    if one.function in METRICS or one.function in earlier:
        yield f"there is a metric {one.function!r} already; give the function another name"


def check_export(export: Export, project: Path) -> Iterator[Finding]:
    """No file is made twice, and none without the importance matrix that its type is made by."""
    for name, count in Counter(export.gguf).items():
        if count > 1:
            yield Finding(("export", "gguf"), f"{name} stands {count} times in the list; keep one")
    if export.importance == "off" and (needing := [kind for kind in export.gguf if kind in NEEDS_IMPORTANCE]):
        yield Finding(("export", "importance"), f"is off, and {needing[0]} is made by an importance matrix; say auto")


def check_llama_cpp(folder: str, project: Path) -> Iterator[Finding]:
    """The folder is a checkout of llama.cpp."""
    path = _folder(folder, project)
    if not (path / CONVERTER).is_file():
        what = f"has no {CONVERTER}" if path.is_dir() else "does not exist"
        yield Finding(("llama_cpp",), f"the folder {folder!r} {what}; name a checkout of llama.cpp, or leave it out")


def _folder(name: str, project: Path) -> Path:
    """Where a folder of the spec lies; `~nobody` is left as it is, which pathlib's own expansion raises on."""
    return project / os.path.expanduser(name)  # noqa: PTH111


def check_validation(train: Mapping[str, Any], data: Data) -> Iterator[Finding]:
    """What chooses a checkpoint is there where one is to be chosen, and asked for where it is there."""
    training = with_defaults(train)
    if train.get(KEEP) == "accuracy":
        from orchestrator.models.lora_gguf import unfit_training

        if not TRAINING_KINDS[stage := training["stage"]].answers:
            yield Finding(("train", KEEP), f"accuracy asks for answers, and stage {stage} teaches none; leave it out")
        elif reason := unfit_training(training):
            why = f"accuracy asks checkpoints as adapter GGUFs, and {reason}; leave it out"
            yield Finding(("train", KEEP), why)
    if data.validation is not None and train.get(KEEP) != "accuracy":
        yield Finding(("data", "validation"), "is asked to choose a checkpoint only; say train.keep: accuracy as well")


_SECTIONS: Mapping[str, type[Section]] = {
    "model": Model, "data": Data, "evaluate": Evaluate, "export": Export, "launch": Launch, "sweep": Sweep,
}  # fmt: skip
_CHECKS: Mapping[str, Callable[[Any, Path], Iterable[Finding]]] = {
    "model": check_model,
    "data": check_data,
    "evaluate": check_evaluate,
    "export": check_export,
    "llama_cpp": check_llama_cpp,
}


def examine(values: Mapping[str, Any], project: Path) -> list[Finding]:
    """Everything wrong with a spec's values; paths in them are relative to `project`."""
    found = misshapen(values)
    broken = {finding.key[0] for finding in found if finding.key}
    sound = {name: _read(name, value) for name, value in values.items() if name not in broken and value is not None}
    train = sound.get("train", {})
    wrong = [Finding(("train", key), message) for key, message in check_training(train)]
    found += wrong
    for name, check in _CHECKS.items():
        if name in sound:
            found += check(sound[name], project)
    if not wrong and "train" not in broken:
        found += check_validation(train, sound["data"]) if "data" in sound else ()
        found += check_launch(sound["launch"], train, project) if "launch" in sound else ()
    if "sweep" in sound:
        found += check_sweep(sound["sweep"], values, lambda changed: examine(changed, project))
    return found


def _read(name: str, value: Any) -> Any:
    """A section as its type; any other value as it is."""
    return _SECTIONS[name].model_validate_json(json.dumps(value)) if name in _SECTIONS else value
