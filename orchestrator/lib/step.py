"""A stage made concrete: what to run, what it reads, what it must leave behind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.files import sha256_of

PHASES = ("prepare", "train", "evaluate", "export", "quantise", "verify")
"""What a user asks for by name; each phase is one or more stages."""


@dataclass(frozen=True, slots=True)
class Step:
    """One process of the chain. Every path is relative to the run's folder, which is also its working folder."""

    stage: str
    phase: str
    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    """Text files written before it starts, such as its configuration."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Text files written before it starts that let it be done sooner, with the same result."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What its configuration tells LLaMA-Factory, as values; empty where another program does the work."""
    expects: tuple[str, ...] = ()
    """Files that must exist and not be empty afterwards; exit code 0 alone proves nothing."""
    leaves: tuple[str, ...] = ()
    """Files that may be there besides, and are results, too; they may be empty."""
    needs: tuple[str, ...] = ()
    """Stages whose outputs it reads."""
    after: tuple[str, ...] = ()
    """Stages that it waits for where they are under way or still to come: with what they leave it is done sooner, with
    the same result. None of them may wait for it."""
    reads: tuple[str, ...] = ()
    """Which of their outputs decide its result, where that is known: patterns as in .gitignore, the last that fits
    counts, `!` takes out again. Who did the same to files of the same contents need not be followed any further."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What else its result depends on: name → content hash or version."""
    env: Mapping[str, str] = field(default_factory=dict)
    keeps: tuple[str, ...] = ()
    """Files that it adds to and goes on from; emptied where it is repeated though it had ended well."""
    shares: tuple[str, ...] = ()
    """Patterns of files beside its outputs that go along when another run takes its result over."""
    folder: str = ""
    """A folder of its own, emptied before a fresh start."""
    checkpoints: bool = False
    """Whether `folder` holds checkpoints that an interrupted run continues from."""
    partials: Mapping[str, str] = field(default_factory=dict)
    """Growing file → final name; renamed once the process has ended well."""
    fingerprint_files: Mapping[str, str] = field(default_factory=dict)
    """File → text that gives the same result elsewhere, and stands for it in the fingerprint."""
    single_flight: bool = False
    """Whether other runs are likely to need the same result at the same time; one makes it, the others wait for it."""
    spawns: bool = False
    """Whether it starts processes in sessions of their own, as torchrun does, so that someone must end them with it."""
    exclusive: bool = False
    """Whether it takes the whole machine, so that nothing is started beside it."""
    judges: bool = False
    """Whether its failure is the artifact's, and so the gate's to report, rather than the machine's."""
    unset: tuple[str, ...] = ()
    """Arguments that nobody wrote: they hold our defaults, and `speed: auto` may choose others."""
    speed: Mapping[str, str] = field(default_factory=dict)
    """What `speed: auto` chose for it: name → YAML scalar."""


def with_arguments(step: Step, arguments: Mapping[str, str], why: str) -> Step:
    """The step with more arguments in its configuration, as YAML scalars; one that is there already stays as it is,
    unless nobody wrote it and it has our default."""
    config = layout.config(step.stage)
    text = step.files[config]
    for name in step.unset:
        if name in arguments:
            text = re.sub(rf"^{name}: {step.arguments[name]}\n", "", text, flags=re.MULTILINE)
    new = {name: value for name, value in arguments.items() if not re.search(rf"^{name}\s*:", text, re.MULTILINE)}
    if not new:
        return step
    lines = [f"# {why}", *(f"{name}: {value}" for name, value in new.items())]
    return replace(step, files={**step.files, config: "\n".join([text.rstrip(), "", *lines, ""])})


def fingerprint(step: Step, upstream: Mapping[str, str], aliases: Mapping[str, str]) -> str:
    """The sha256 of all that a step's result depends on, in hexadecimal.

    `upstream` holds the fingerprints of the stages it needs. `aliases` maps paths of this machine (the base model's
    folder, the interpreter) to stable names, so that a moved project or cache repeats no work.
    """
    facts = {
        "stage": step.stage,
        "argv": as_recorded(step.argv),
        "files": {**step.files, **step.fingerprint_files},
        "inputs": dict(step.inputs),
        "needs": {stage: upstream[stage] for stage in step.needs},
    }
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    for path, name in sorted(aliases.items(), key=lambda item: -len(item[0])):
        text = text.replace(json.dumps(path, ensure_ascii=False)[1:-1], name)
    return sha256_of(text)


def content_fingerprint(step: Step, own: str, outputs: Mapping[str, str]) -> str:
    """The sha256 of all that a step's result depends on, with the contents of what it reads in the place of how those
    came about; empty where it is not known what it reads.

    `own` is its fingerprint without those of the stages that it needs, `outputs` what these left: path → sha256.
    """
    if not step.reads:
        return ""
    read = sorted((path, digest) for path, digest in outputs.items() if _fits(path, step.reads))
    return sha256_of(json.dumps(["contents", own, read]))


def _fits(path: str, patterns: tuple[str, ...]) -> bool:
    fits = False
    for pattern in patterns:
        if fnmatchcase(path, pattern.removeprefix("!")):
            fits = not pattern.startswith("!")
    return fits


FORMER_MODULES = {
    "ask": "ask_gguf", "gate": "score", "gate-perplexity": "judge_perplexity", "read-texts": "perplexity_gguf",
}  # fmt: skip
"""Program of `orchestrator.stages` → the module of orchestrator.workers that it once was, where the name differs."""


def as_recorded(argv: tuple[str, ...]) -> tuple[str, ...]:
    """A command as the fingerprints of finished runs have it, for which each program was a module of its own."""
    match argv:
        case (python, "-m", "orchestrator.stages", program, *rest):
            return (python, "-m", f"orchestrator.workers.{FORMER_MODULES.get(program, program)}", *rest)
        case (python, "-m", "orchestrator.stages.trl", *rest):
            return (python, "-m", "orchestrator.workers.trl_train", *rest)
    return argv
