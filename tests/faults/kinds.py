"""Which faults there are, and what the tool has to answer to each."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.faults import stand_in
from tests.faults.tool import Blow, Call, Strike

WEIGHTS = "../model/model.safetensors"
Change = Callable[[Path], None]
"""Something done to the project between calls of the tool."""


def nothing(project: Path) -> None:
    """No change."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, how the tool has to end, and whether what was finished before may be made again."""

    kind: str
    where: str
    codes: frozenset[int]
    call: Call = field(default_factory=Call)
    says: str = ""
    finished: bool = False
    """Whether it happens to a finished run instead of a new one."""
    damage: Change = nothing
    repair: Change = nothing
    spoils: bool = False
    """Whether it destroys finished outputs, which then have to be made again."""


# ---- the tool, at one of its effects


def send(number: signal.Signals) -> None:
    """The tool gets a signal."""
    os.kill(os.getpid(), number)


def refuse(number: int) -> None:
    """The operating system refuses."""
    raise OSError(number, os.strerror(number))


BLOWS: dict[str, tuple[Strike, bool, frozenset[int]]] = {
    "kill -9 of the tool": (partial(send, signal.SIGKILL), False, frozenset({-9})),
    "SIGTERM": (partial(send, signal.SIGTERM), False, frozenset({130})),
    "SIGINT": (partial(send, signal.SIGINT), False, frozenset({130})),
    # 0: what cannot be written is a cache or a page, and the chain goes on without
    "read-only disk": (partial(refuse, errno.EROFS), True, frozenset({0, 3})),
    "disk full": (partial(refuse, errno.ENOSPC), True, frozenset({0, 3})),
    "no permission": (partial(refuse, errno.EACCES), False, frozenset({0, 3})),
    "input/output error": (partial(refuse, errno.EIO), False, frozenset({0, 3})),
}


def to_the_tool(effects: Sequence[str], each: int, chance: random.Random) -> Iterator[Fault]:
    """Every kind of blow at so many of the tool's effects, spread over the whole chain."""
    for kind, (strike, lasting, codes) in BLOWS.items():
        for number in spread(len(effects), each, chance):
            yield Fault(
                kind, f"{number}: {_short(effects[number - 1])}", codes, Call(blow=Blow(number, strike, lasting))
            )


def spread(count: int, parts: int, chance: random.Random) -> list[int]:
    """A number from each of `parts` equal parts of 1 … count."""
    borders = [1 + count * part // parts for part in range(parts + 1)]
    return [chance.randrange(low, max(low + 1, high)) for low, high in pairwise(borders)]


def _short(effect: str) -> str:
    event, _, path = effect.partition(" ")
    return f"{event} {Path(path).name}"


# ---- a stage


FAILED = frozenset({4, 5})
"""A stage failed; 5 where its failure is the artifact's."""
SCRIPTS: dict[str, tuple[str, frozenset[int], str]] = {
    "stage killed inside a write": ('printf half > "$first"; kill -9 $$', FAILED, "ran out of memory"),
    "stage exits 0 and writes nothing": ("exit 0", frozenset({4}), "did not write|missing or empty"),
    "stage exits 0 and leaves empty files": (': > "$first"; exit 0', frozenset({4}), "missing or empty"),
    "stage fails in Chinese": (
        "echo 'ValueError: 第三行的标签是空的'; exit 1",
        FAILED,
        "第三行的标签是空的",
    ),
    "stage prints broken UTF-8": (
        r"printf '\377\376Error \377\n'; exit 3",
        FAILED,
        "ended with exit code 3",
    ),
    "stage prints 40 MB in a line": (
        "head -c 40000000 /dev/zero | tr '\\0' x; exit 1",
        FAILED,
        "ended with exit code 1",
    ),
    "GPU out of memory": (
        "echo 'torch.cuda.OutOfMemoryError: CUDA out of memory.'; exit 1",
        FAILED,
        "ran out of memory",
    ),
    "memory runs out": (
        f"ulimit -v 400000; exec {shlex.quote(sys.executable)} -S -c 'bytearray(1 << 30)'",
        FAILED,
        "MemoryError(.|\n)*ran out of memory",
    ),
    "stage hangs until Ctrl-C": (
        "trap '' INT TERM; kill -INT $PPID; sleep 600",
        frozenset({130}),
        "interrupted",
    ),
    "stage ignores SIGTERM while the tool is told to stop": (
        "trap '' TERM; kill -TERM $PPID; sleep 600",
        frozenset({130}),
        "stopped by SIGTERM",
    ),
    "stage fails and leaves a process behind": (
        'sleep 600 & echo "left-behind $!" >> "$ledger"; echo Error; exit 1',
        FAILED,
        "ended with exit code 1",
    ),
    "stage kills the tool": ('printf half > "$first"; kill -9 $PPID; sleep 600', frozenset({-9}), ""),
}
DIVERGED = '{"current_steps": 7, "total_steps": 9, "loss": NaN}'


def to_a_stage(stages: Sequence[str]) -> Iterator[Fault]:
    """Every kind of misbehaviour of every stage."""
    for kind, (lines, codes, says) in SCRIPTS.items():
        for stage in stages:
            yield Fault(kind, stage, codes, Call(scripts={stage: lines}), says)
    for stage in stages[1:]:  # the first one reads nothing that a stage has made
        damages = Call(scripts={stage: 'printf more >> "$input"; exit 1'})
        yield Fault("what a stage reads is damaged", stage, FAILED, damages, "it reads is damaged", spoils=True)
    diverges = Call(scripts={"train": f"echo '{DIVERGED}' > train/trainer_log.jsonl; sleep 600"})
    yield Fault("training diverges", "train", FAILED, diverges, "training diverged: loss became nan at step 7")


# ---- files at rest


def to_outputs(outputs: Sequence[str]) -> Iterator[Fault]:
    """Each output of a finished run is lost, or cut short."""
    for path in outputs:
        yield Fault("output lost", path, frozenset({0}), finished=True, damage=partial(_lose, path), spoils=True)
        yield Fault("output cut in half", path, frozenset({0}), finished=True, damage=partial(_cut, path), spoils=True)


def to_the_rest() -> Iterator[Fault]:
    """What may befall the project around a run, and the run's own books."""
    good, bad = frozenset({0}), frozenset({2})
    for name, text in (("cut", '{"schema": 1, "id'), ("empty", ""), ("of another kind", "[]"), ("binary", "\0\xff")):
        damage = partial(_overwrite, "run.json", text)
        yield Fault(f"run.json {name}", "run.json", good, finished=True, damage=damage, spoils=True)
    yield Fault("run.json of a newer version", "run.json", good, finished=True, damage=_newer, spoils=True)
    for name in (".index.sqlite", ".lock", "report.html", "spec.yaml", "logs/train.log", "configs/train.yaml"):
        yield Fault("garbage", name, good, finished=True, damage=partial(_overwrite, name, "no such thing\n" * 9))
    yield Fault("the cache is gone", "cache", good, finished=True, damage=_no_cache)
    yield Fault("the stage cache is gone", ".cache", good, finished=True, damage=_no_stage_cache)
    yield Fault("the stage cache is a file", ".cache", good, finished=True, damage=_stage_cache_is_a_file)
    yield Fault("run folder under another name", "runs/", good, finished=True, damage=_rename)
    yield Fault("run folder copied", "runs/", good, finished=True, damage=_copy)
    yield Fault("project moved", "project/", good, finished=True, damage=_move_project)
    for name in ("data/train.json", "data/eval.json", "spec.yaml", "../model", "../llama.cpp"):
        away, back = partial(_move, name, f"{name}.away"), partial(_move, f"{name}.away", name)
        codes = bad if name != "../llama.cpp" else frozenset({3})
        yield Fault("an input vanished", name, codes, damage=away, repair=back)
    cut, mend = partial(_truncate, WEIGHTS), partial(_write, WEIGHTS, stand_in.NO_WEIGHTS)
    says = "model.safetensors .* is damaged"
    yield Fault("weights cut short", "model", bad, says=says, damage=cut, repair=mend)
    yield Fault("the clock goes back a day", "time", good, Call(prepare=_yesterday))
    yield Fault("the clock runs backwards", "time", good, Call(prepare=_backwards))
    for number in (1, 7, 12):
        yield Fault(
            "Ctrl-C inside a fork", f"{number}", frozenset({130}), Call(prepare=partial(_interrupt_fork, number))
        )
    for size in (2000, 5000, 20_000):  # the message itself has to fit
        call = Call(prepare=partial(_limit, size))
        yield Fault("files may not grow", f"{size} bytes", frozenset({0, 3, 4}), call)


def _run_of(project: Path) -> Path:
    return next((project / "runs").glob("2*"))


def _lose(path: str, project: Path) -> None:
    (_run_of(project) / path).unlink()


def _cut(path: str, project: Path) -> None:
    file = _run_of(project) / path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _overwrite(name: str, text: str, project: Path) -> None:
    folder = project / "runs" if name.startswith(".index") else _run_of(project)
    (folder / name).write_text(text, encoding="latin-1")


def _newer(project: Path) -> None:
    file = _run_of(project) / "run.json"
    record: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "schema": 99}))


def _no_cache(project: Path) -> None:
    shutil.rmtree(project.parent / "cache", ignore_errors=True)


def _no_stage_cache(project: Path) -> None:
    shutil.rmtree(project / "runs/.cache")


def _stage_cache_is_a_file(project: Path) -> None:
    _no_stage_cache(project)
    (project / "runs/.cache").write_text("no such thing\n")


def _rename(project: Path) -> None:
    folder = _run_of(project)
    folder.rename(folder.with_name("20200101T000000Z-copied-from-elsewhere"))


def _copy(project: Path) -> None:
    folder = _run_of(project)
    shutil.copytree(folder, folder.with_name("20200101T000000Z-copied-from-elsewhere"))


def _move_project(project: Path) -> None:
    elsewhere = project.parent / "another machine 另一台"
    project.rename(elsewhere)
    project.symlink_to(elsewhere)


def _write(name: str, content: bytes, project: Path) -> None:
    (project / name).write_bytes(content)


def _truncate(name: str, project: Path) -> None:
    _write(name, (project / name).read_bytes()[:-1], project)


def _move(name: str, to: str, project: Path) -> None:
    (project / name).rename(project / to)


def _yesterday() -> None:
    real = time.time
    time.time = lambda: real() - 86_400


def _backwards() -> None:
    real, hours = time.time, itertools.count()
    time.time = lambda: real() - 3600 * next(hours)


def _interrupt_fork(number: int) -> None:
    forks = itertools.count(1)

    def interrupt() -> None:  # Python prints what is raised here, and goes on
        if next(forks) == number:
            raise KeyboardInterrupt

    os.register_at_fork(after_in_parent=interrupt)


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
