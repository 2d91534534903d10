"""A training that was made elsewhere, such as in LLaMA-Factory's board, becomes a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.chat_template.registry import TemplateName, definition
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError
from orchestrator.lib.fetch import Progress
from orchestrator.lib.files import read_json, sha256, write_text
from orchestrator.lib.llamafactory import arguments
from orchestrator.models.finite import require_finished
from orchestrator.models.saves import read_arguments
from orchestrator.models.sources import find_folder
from orchestrator.pipeline.plan import make_plan
from orchestrator.pipeline.scheduler import Reporter
from orchestrator.pipeline.workflow import lineage, run_until
from orchestrator.runs import outputs
from orchestrator.runs.locks import locked
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run
from orchestrator.spec.editing import edited
from orchestrator.spec.load import Project, load_project
from orchestrator.spec.sections import DEFAULTS
from orchestrator.spec.training import ELSEWHERE

ARGUMENTS = "training_args.yaml"
"""Where the board writes what it starts a training with."""
WEIGHTS = ("adapter_model.safetensors", "config.json")
PROOF = ("trainer_state.json", "all_results.json")
"""Written at the very end of a training."""
NOT_OURS = (ARGUMENTS, "llamaboard_config.yaml", "running_log.txt", "training_args.bin")
"""What the board leaves beside it, keys of trackers included, and a pickle."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The run, and the spec with which every other command finds it."""

    run: Run
    spec: Path


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training and the arguments that it was started with."""

    folder: Path
    arguments: Mapping[str, Any]
    written: Path


def adopt(folder: Path, config: Path | None, given: Project, reporter: Reporter, progress: Progress) -> Adopted:
    """Make a finished training a run of a project, with its arguments in place of the spec's.

    Raises InputError for what is no finished training, or one of other rows than the spec's, and what `prepare` raises.
    """
    training = sound(folder, config)
    project = _spec_of(training, given)
    run = run_until(project, "prepare", reporter, progress)
    _require_same_rows(training, run)
    full_plan = make_plan(project)
    with locked(run.folder):
        _fill(training, run, full_plan.of("train"), project)
        origin = {"path": str(folder), "arguments": sha256(training.written)}
        run.set(status="completed", lineage={**lineage(full_plan, run), "adopted_from": origin})
    project.hashes.save()
    return Adopted(run, project.path)


# ---- what was trained


def read(folder: Path, config: Path | None = None) -> Training:
    """The training in a folder. Raises InputError that names all that is missing."""
    written = config or folder / ARGUMENTS
    missing = [name for name in PROOF if not (folder / name).is_file()]
    missing += [] if any((folder / name).is_file() for name in WEIGHTS) else [" or ".join(WEIGHTS)]
    missing += [] if written.is_file() else [written.name]
    if missing:
        hint = "Name the output_dir of a training that ended well; --config names its arguments elsewhere."
        raise InputError(f"{folder} is no finished training: it has no {', '.join(missing)}", hint)
    found = read_arguments(written)
    if "model_name_or_path" not in found or "dataset" not in found:
        raise InputError(f"{written} holds no arguments of a training", "Name the YAML file it was started with.")
    if found.get("adapter_name_or_path"):
        raise InputError(
            f"{folder} went on from the adapter {found['adapter_name_or_path']!r}",
            "Such a training cannot be adopted; make it with `model: {base: run:ID@adapter}` instead.",
        )
    return Training(folder, found, written)


def sound(folder: Path, config: Path | None = None) -> Training:
    """The same, with every figure and weight looked at. Raises Diverged where one of them is no number."""
    training = read(folder, config)
    require_finished(folder)
    return training


def spec_changes(training: Training, project: Project) -> dict[str, Any]:
    """Key of the spec → value, such that it asks for exactly this training."""
    given, known = training.arguments, arguments()
    kept = {key: given[key] for key in given if key in known and key not in ELSEWHERE}
    silent = {key: known[key].default for key in DEFAULTS if key not in given}  # what LLaMA-Factory did unasked
    changes: dict[str, Any] = {"train": {**kept, **silent}}
    if (base := str(given["model_name_or_path"])) != str(find_folder(project.spec.model.base, project.root)):
        changes["model.base"] = base if Path(base).is_dir() else f"hf:{base}"
    template = TemplateName(str(given.get("template", "default")), given.get("tool_format"))
    changes["model.template"] = str(template)
    if definition(template.template).reasons:
        changes["model.thinking"] = bool(given.get("enable_thinking", True))
    return changes


def _spec_of(training: Training, given: Project) -> Project:
    """The project's spec with the training's arguments, in a file beside it."""
    path = given.path.with_name(f"{given.path.stem}-{training.folder.resolve().name}.yaml")
    text = edited(given.text, spec_changes(training, given), without=["sweep"])
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InputError(f"{path} is there already and says something else", "Remove it, or rename the folder.")
    write_text(path, text)
    try:
        return load_project(path, runs_dir=given.runs_dir, root=given.root)
    except InputError:
        path.unlink()
        raise


# ---- what it was trained on


def _require_same_rows(training: Training, run: Run) -> None:
    file, prepared = dataset(training), run.folder / layout.TRAIN_ROWS
    if sha256(file) != sha256(prepared):
        raise InputError(
            f"{training.folder} was trained on {file}, which holds other rows than the spec's data.train",
            "Name the spec whose data it was trained on with --spec.",
        )
    if (limit := int(training.arguments.get("max_samples") or 0)) and limit < len(read_json(prepared)):
        raise InputError(f"{training.folder} was trained on {limit} of the rows only", "Train it on all of them.")


def dataset(training: Training) -> Path:
    """The file of rows it was trained on. Raises InputError unless that is exactly one, and there."""
    name, where = str(training.arguments["dataset"]), str(training.arguments.get("dataset_dir", "data"))
    for register in _registers(training.folder, where):
        entry = read_json(register).get(name)
        file = register.parent / str((entry or {}).get("file_name", ""))
        if file.is_file():
            return file
    raise InputError(
        f"{training.folder} was trained on {name!r}, which is no data set in {where!r}",
        "Train it in `orchestrator webui`, which registers the data of a spec.",
    )


def _registers(folder: Path, where: str) -> Iterator[Path]:
    """A relative folder of data sets is one of where the training was started: somewhere above its own folder."""
    for start in (folder.resolve(), *folder.resolve().parents):
        if (register := start / where / "dataset_info.json").is_file():
            yield register


# ---- the run


def _fill(training: Training, run: Run, trained: Planned, project: Project) -> None:
    """Copy what was trained into the run and record it as its training."""
    step = trained.step
    target = run.folder / step.folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    files = [file for file in training.folder.iterdir() if file.is_file() and file.name not in NOT_OURS]
    for file in files:
        shutil.copy2(file, target)
    for path, text in step.files.items():
        write_text(run.folder / path, text)
    if absent := [path for path in step.expects if not (run.folder / path).is_file()]:
        raise InputError(f"{training.folder} is no finished training: it has no {', '.join(absent)}", "")
    results = read_json(target / "all_results.json")
    done = outputs.finished(run.folder, [f"{step.folder}/{file.name}" for file in files], project.hashes)
    run.begin(step, trained.fingerprint, step.argv)
    run.end(step.stage, "completed", float(results.get("train_runtime", 0.0)), None, done)
    run.record["stages"][step.stage]["adopted_from"] = str(training.folder)
    run.save()
