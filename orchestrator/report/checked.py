"""What `check` says of a base model: its template, what will be served, the disk it takes, whether it fits a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from orchestrator.chat_template.registry import definition
from orchestrator.chat_template.turns import special_tokens, stop_words, turns
from orchestrator.lib.words import counted
from orchestrator.models.sizing import Fit, Work
from orchestrator.spec.sections import Spec


@dataclass(frozen=True, slots=True)
class Disk:
    """What is to be written, and what is free."""

    parts: Mapping[str, int]
    """What the run leaves → bytes."""
    free: int
    """Bytes on the project's disk."""
    download: int = 0
    """Bytes that are to be fetched first; 0 for a model that is here."""
    cache_free: int = 0
    """Bytes on the cache's disk."""


def template_lines(spec: Spec, folder: Path, template: str, origin: str) -> list[str]:
    """The template and what it was chosen by, how prompts end, and what serving will use."""
    shape, tokens = definition(template), special_tokens(folder)
    written = turns(shape, tokens, spec.model.thinking)
    thought = written.empty_thought if not spec.model.thinking else ""
    return [
        f"template: {template}, {origin}",
        f"prompts end with: {(written.user.after + thought)!r}",
        f"served with: {served(spec, stop_words(shape, tokens))}",
    ]


def served(spec: Spec, stop: Sequence[str]) -> str:
    """What a Modelfile of this spec will say, in a line."""
    ollama = spec.export.ollama
    system = ollama.system or spec.data.system
    parts = [
        "the template of training",
        f"system text {system[:40]!r}" if system else "no system text of the spec's",
        f"stop {', '.join(stop)}",
        *(f"{key} {value}" for key, value in ollama.parameters.items()),
    ]
    return "; ".join(parts)


def disk_lines(disk: Disk) -> Iterator[str]:
    """What is written where, and a warning for a disk that has no room for it."""
    whole = sum(disk.parts.values())
    parts = ", ".join(f"{name} {decimal(size)}" for name, size in disk.parts.items())
    yield f"disk: {parts}; {decimal(whole)} in all, {decimal(disk.free)} free"
    if whole > disk.free:
        yield f"warning: the disk of the project has no room: {decimal(whole)} of {decimal(disk.free)} free"
    if disk.download:
        yield f"download: {decimal(disk.download)}, {decimal(disk.cache_free)} free where the cache is"
    if disk.download > disk.cache_free:
        yield (
            f"warning: the disk of the cache has no room: {decimal(disk.download)} of {decimal(disk.cache_free)} free"
            "; ORCHESTRATOR_CACHE and HF_HOME name others"
        )


def fit_lines(fits: Sequence[Fit], gpu: int, tokens: int) -> Iterator[str]:
    """A line for each way of training, and one that says which to take."""
    yield f"on a GPU of {gpu / 2**30:.0f} GB, rows of {tokens} tokens:"
    for fit in fits:
        needs = f"{fit.needed / 2**30:.1f} GiB with {counted(fit.batch or 1, 'row')} at a time"
        yield f"  {fit.way}: {'fits' if fit.batch else 'does not fit'}, {needs}"
    if not any(fit.batch for fit in fits):
        yield "  nothing fits: a larger card, a smaller model, or a smaller train.cutoff_len"


def time_line(work: Work, tokens_per_second: float) -> str:
    """How long the training takes at the speed that was stated."""
    tokens = work.rows * work.tokens * work.epochs
    return (
        f"time: {counted(work.rows, 'row')} of {work.tokens} tokens, {work.epochs:g} epochs: {tokens / 1e6:.1f} M "
        f"tokens, {work.hours(tokens_per_second):.1f} h at {tokens_per_second:,.0f} tokens a second"
    )
