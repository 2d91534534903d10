"""Spec → ordered steps, each up to date or not, and why. Reads and hashes; changes nothing but what is remembered of
hashes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.chat_template.refusals import read_by_servers, refusal
from orchestrator.data.hub import local_files
from orchestrator.lib.cpu import cores
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import HashCache
from orchestrator.lib.render import Renderer
from orchestrator.lib.step import PHASES, Step
from orchestrator.machine import environment
from orchestrator.models import earlier, llamacpp, sources
from orchestrator.models.situation import devices
from orchestrator.runs import reuse
from orchestrator.runs.reuse import Planned
from orchestrator.runs.store import Run
from orchestrator.spec.load import Project
from orchestrator.spec.sections import AUTO, Spec
from orchestrator.spec.training import paths
from orchestrator.stages import chain
from orchestrator.stages.base import Context

if TYPE_CHECKING:
    from orchestrator.data.checks import Mode

PACKAGES = (
    "llamafactory",
    "transformers",
    "torch",
    "peft",
    "accelerate",
    "llama-cpp-python",
    "rouge-score",
    "sacrebleu",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a spec, and the run they belong to; None where a new one is needed."""

    spec: Spec
    run: Run | None
    steps: tuple[Planned, ...]
    cure: str | None = None
    """What was done that the base model's tokenizer is loaded rightly, in a few words."""
    project: Path = Path()
    """What paths in the spec are relative to."""

    def of(self, stage: str) -> Planned:
        """The step of a stage that the plan has."""
        return next(planned for planned in self.steps if planned.step.stage == stage)

    def until(self, phase: str) -> Plan:
        """The part of the plan up to and including a phase."""
        last = PHASES.index(phase)
        return replace(self, steps=tuple(p for p in self.steps if PHASES.index(p.step.phase) <= last))


def make_plan(project: Project) -> Plan:
    """The whole chain for a project. The base model must have been fetched; raises MissingError otherwise."""
    context = make_context(project)
    if context.adapter:
        earlier.require_continuable(context.adapter, context.training, project.spec.train)
    steps = chain(context)
    _require_known(project.force, steps)
    named = reuse.named(steps, aliases(context))
    run = reuse.own_run(project.runs_dir, project.spec.name, named, project.force)
    judged = reuse.judge(named, run, project.force, project.hashes)
    project.hashes.save()
    return Plan(project.spec, run, tuple(judged), context.base_cure, project.root)


def startable(waiting: Sequence[Planned], running: Collection[Step], at_once: Callable[[], int]) -> list[Planned]:
    """What may start now, in the order of the plan: steps for which all that they need is done, and all that would make
    them faster and is still to come, as far as the running ones leave room.

    Nothing overtakes a step that waits for room, so one that takes the whole machine gets it. `at_once`, how many there
    is room for, is asked only once there could be two.
    """
    unfinished = {planned.step.stage for planned in waiting} | {step.stage for step in running}
    chosen: list[Planned] = []
    for planned in waiting:
        beside = [*running, *(other.step for other in chosen)]
        if unfinished.intersection((*planned.step.needs, *planned.step.after)):
            continue
        if beside and (planned.step.exclusive or any(step.exclusive for step in beside) or len(beside) >= at_once()):
            break
        chosen.append(planned)
    return chosen


def aliases(context: Context) -> dict[str, str]:
    """Paths of this machine → names that do not change when a project or a cache moves."""
    return {
        str(context.base_path): "BASE",
        **({str(context.adapter): "ADAPTER"} if context.adapter else {}),
        str(context.converter): "LLAMA_CPP",
        str(context.project): "PROJECT",
        sys.executable: "PYTHON",
    }


def make_context(project: Project) -> Context:
    """The facts about this machine that the stages need."""
    spec = project.spec
    trusted = spec.model.trust_remote_code
    base = sources.locate(spec.model.base, project.root, project.hashes, project.runs_dir, trusted)
    converter = llamacpp.checkout(spec.llama_cpp)
    if base.path is None:
        raise MissingError(f"{base.name} is not on this machine yet", f"Run `orchestrator model fetch {base.name}`.")
    if converter is None:
        raise MissingError(
            "llama.cpp's converter is not on this machine yet", "Run `make setup`, or `orchestrator model fetch`."
        )
    sources.require_mergeable(base.path, base.name)
    return Context(
        spec=spec,
        project=project.root,
        base_path=base.path,
        base_identity=base.identity,
        base_cure=base.cure,
        template=resolve_template(spec, project.runs_dir),
        data_hashes={name: _data_hash(name, project.root, project.hashes) for name in data_files(spec)},
        argument_hashes=_argument_hashes(project),
        versions={**versions(), "llama.cpp": llamacpp.version(converter)},
        converter=converter,
        render=Renderer(project.root),
        adapter=base.adapter,
        gpus=devices(spec.train),
        cores=cores(),
    )


def resolve_template(spec: Spec, runs_dir: Path) -> str:
    """The name of the LLaMA-Factory template. Raises InputError for none, and for one that cannot be served."""
    chosen = spec.model.template
    found = sources.template_of(spec.model.base, runs_dir) if chosen == "auto" else chosen
    if found and (reason := refusal(found, spec.model.thinking)):
        raise InputError(f"model.template: {found!r} cannot be served: {reason}", "Choose another template.")
    if found is None:
        raise InputError(
            f"model.template: no template is known for {spec.model.base!r}",
            "Name one, such as `template: qwen`; `orchestrator template check --all` lists them.",
        )
    return _with_calls_read(found, spec) if chosen == "auto" else found


def _with_calls_read(template: str, spec: Spec) -> str:
    """The template; where it is to call tools and no server would read that, with a tool format that they read."""
    if spec.evaluate.task != "tools" or "calls_not_read" in spec.data.accept:
        return template
    return read_by_servers(template, spec.model.thinking) or template


def mode_of(project: Project) -> Mode:
    """How a project's rows are trained, as far as it decides what becomes of their thoughts."""
    from orchestrator.data.checks import Mode

    return Mode.of(resolve_template(project.spec, project.runs_dir), project.spec.model.thinking)


def data_files(spec: Spec) -> list[str]:
    """Every data file that a spec names, once, in order."""
    data = spec.data
    validation = data.validation if isinstance(data.validation, str) and data.validation != AUTO else ()
    groups = [data.train, data.eval or (), data.test or (), validation]
    names = [name for group in groups for name in ([group] if isinstance(group, str) else group)]
    return list(dict.fromkeys(names))


def _data_hash(name: str, project: Path, hashes: HashCache) -> str:
    return "+".join(hashes.sha256(path) for path in local_files(name, project))


def _argument_hashes(project: Project) -> dict[str, str]:
    """What the files and models that training arguments name hold, as inputs of a step."""
    named, hashes = paths(project.spec.train, project.root), project.hashes
    return {
        f"train.{key}": sources.content_hash(path, hashes) if path.is_dir() else hashes.sha256(path)
        for key, path in named.items()
    }


def versions() -> dict[str, str]:
    """The installed versions of the packages that results depend on."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache
def _version(name: str) -> str:
    return environment.version(name) or "missing"


def _require_known(force: Collection[str], steps: list[Step]) -> None:
    names = [*PHASES, *(step.stage for step in steps)]
    for name in force:
        if name not in names:
            raise InputError(f"--force {name!r}: no such stage", f"Choose from: {', '.join(dict.fromkeys(names))}.")
