"""What docs/scaling.md says of many devices: one training, on paper; and ten thousand trials, simulated.

python -m benchmarks.scaling simulate [TRIALS WORKERS]   a sweep over workers that only sleep, in simulated time
python -m benchmarks.scaling                             write the generated parts of docs/scaling.md anew
"""

from __future__ import annotations

import heapq
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sweep_cost import Silence
from orchestrator.executors.base import Job
from orchestrator.lib.files import write_json
from orchestrator.models.memory import MemoryInput, train, trainable
from orchestrator.models.shape import Model
from orchestrator.pipeline.remote import TaskJob
from orchestrator.runs.results import metrics
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import DEFAULTS, Sweep
from orchestrator.sweep import sweeper
from orchestrator.sweep.run import run_sweep
from orchestrator.sweep.trial import TrialFactory
from tests.fake_stages import write_scores

PAGE = Path(__file__).parent.parent / "docs/scaling.md"
MEASURED = Path(__file__).parent / "scaling.json"
GIB = 2**30

# ---- one training over many devices, on paper

SEVEN_B = Model(
    weights=2 * 6_738_415_616,
    parameters=6_738_415_616,
    matrices=tuple(
        (name, outputs, inputs)
        for name, outputs, inputs in (
            *((name, 4096, 4096) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
            *((name, 11008, 4096) for name in ("gate_proj", "up_proj")),
            ("down_proj", 4096, 11008),
        )
        for _ in range(32)
    ),
    hidden=4096,
    inner=11008,
    layers=32,
    heads=32,
    cached=2 * 32 * 128,
    vocabulary=32000,
)
"""Llama 2 7B, from its config.json."""
TOKENS, ROWS = 1024, 512
"""Of a row; and rows of a step, held as devices are added."""
DEVICES = (1, 8, 64, 512)
ENGINES = {"DDP": 0, "ZeRO-2": 2, "ZeRO-3": 3}
PAYS = 0.5
"""An engine stops paying where the devices compute less than half of the time."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes of eight devices."""

    name: str
    memory: float
    """GiB of a device."""
    flops: float
    """Of a device in half precision, as a training reaches them, a second."""
    inside: float
    """Bytes a second that a device sends to its neighbour in the node."""
    outside: float
    """Bytes a second for each device when all of a node send to other nodes at once."""
    latency: float = 10e-6
    """Seconds of one message."""


CLUSTERS = (
    Cluster("A100 80 GB, NVLink, one 200 Gbit/s InfiniBand port a device", 80, 0.4 * 312e12, 300e9, 25e9),
    Cluster("RTX 4090 24 GB, PCIe 4.0 x16, one 25 Gbit/s Ethernet port a node", 24, 0.4 * 165e12, 25e9, 25e9 / 8 / 8),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One training on so many devices with one engine."""

    devices: int
    engine: str
    memory: float
    """GiB of each device."""
    sent: float
    """GB that each device sends in a step."""
    computing: float
    """Seconds of a step."""
    sending: float
    """Seconds of a step, none of them hidden behind computing."""

    @property
    def efficiency(self) -> float:
        """The share of a step in which devices compute."""
        return self.computing / (self.computing + self.sending)


def estimate(cluster: Cluster, kind: str, engine: str, devices: int) -> Estimate:
    """The memory of our forecast, and the time of a step of ROWS rows with micro-batches of one row."""
    arguments = {**DEFAULTS, "finetuning_type": kind, "bf16": True, "per_device_train_batch_size": 1}
    zero = ENGINES[engine]
    forecast = train(SEVEN_B, MemoryInput(arguments, TOKENS, devices=devices, zero=zero))
    micro = ROWS // devices
    gradients = 4 * trainable(SEVEN_B, arguments)
    gathered = SEVEN_B.weights if kind == "lora" else 2 * SEVEN_B.parameters
    share = (devices - 1) / devices
    sent, messages = collectives(zero, share, gradients, gathered, micro)
    speed = cluster.inside if devices <= 8 else cluster.outside
    return Estimate(
        devices=devices,
        engine=engine,
        memory=sum(forecast.gpu.values()) / GIB,
        sent=sent / 1e9,
        computing=micro * TOKENS * flops(kind) / cluster.flops,
        sending=sent / speed + messages * (devices - 1) * cluster.latency,
    )


def flops(kind: str) -> int:
    """Of a token, with the forward pass computed twice (gradient checkpointing): 2 each for it, 2 for the gradients of
    activations and, where the weights themselves are trained, 2 for theirs (Kaplan et al. 2020, table 1)."""
    return (8 if kind == "full" else 6) * SEVEN_B.parameters


def collectives(zero: int, share: float, gradients: int, weights: int, micro: int) -> tuple[float, int]:
    """Bytes that a device sends in a step, and collective operations.

    Ring all-reduce: 2 (p−1)/p · bytes, once a step (Patarasuk and Yuan 2009). ZeRO-2 reduces and gathers the same
    volume. ZeRO-3 gathers the weights for the forward and again for the backward pass of every micro-batch and
    reduces gradients there: three times (p−1)/p · bytes where all is trained (Rajbhandari et al. 2020, section 7).
    """
    if share == 0:
        return 0.0, 0
    if zero < 3:
        return 2 * share * gradients, 2
    return share * micro * (2 * weights + gradients), 3 * SEVEN_B.layers * micro


def paper() -> str:
    """The tables, and the sentence of each engine."""
    parts = []
    for kind, title in (("lora", "LoRA, rank 8, all matrices"), ("full", "full fine-tune")):
        for cluster in CLUSTERS:
            parts += [f"**7B {title}** on {cluster.name}", "", *_table(cluster, kind), ""]
    return "\n".join(parts).rstrip()


def _table(cluster: Cluster, kind: str) -> Iterator[str]:
    yield "| engine | devices | GiB a device | fits | GB sent a step | s computing | s sending | computing |"
    yield "|---|---|---|---|---|---|---|---|"
    for engine in ENGINES:
        for devices in DEVICES:
            one = estimate(cluster, kind, engine, devices)
            fits = "yes" if one.memory <= cluster.memory else "no"
            yield (
                f"| {engine} | {devices} | {one.memory:.1f} | {fits} | {one.sent:.2f} | {one.computing:.2f} |"
                f" {one.sending:.2f} | {one.efficiency:.0%} |"
            )
    yield ""
    for engine in ENGINES:
        yield f"- {engine}: {_verdict(cluster, kind, engine)}"


def _verdict(cluster: Cluster, kind: str, engine: str) -> str:
    """From how many devices on it fits, and up to how many it pays."""
    counts = [2**power for power in range(10)]
    found = {count: estimate(cluster, kind, engine, count) for count in counts}
    fits = [count for count, one in found.items() if one.memory <= cluster.memory]
    if not fits:
        return "does not fit on any number of devices."
    pays = [count for count in fits if found[count].efficiency >= PAYS]
    begins = f"fits from {fits[0]} device{'s' * (fits[0] > 1)} on"
    return f"{begins}, pays up to {pays[-1]}." if pays else f"{begins}, and never computes half of the time."


# ---- many trainings over many workers, simulated

SPEC = """\
name: nothing
data: {{train: {data}/train.json, eval: {data}/eval.json}}
train: {{learning_rate: 1.0e-3}}
"""
MINUTES = {"all ten minutes": (10, 10), "five to fifteen minutes": (5, 15)}


class Clock:
    """Time in which the sweep's own work takes as long as it does, trials take what they would, and nobody waits."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self.excluded = 0.0
        self.events: list[float] = []
        """When jobs end; a heap."""
        self.busy = False

    def monotonic(self) -> float:
        return time.perf_counter() + self._skipped - self.excluded

    def sleep(self, seconds: float) -> None:
        """Go on by so much; to the end of the next job, if none has ended and none was told of since the last sleep."""
        now = self.monotonic()
        while self.events and self.events[0] <= now:
            heapq.heappop(self.events)
            self.busy = True
        next_end = now if self.busy or not self.events else self.events[0]
        self._skipped += max(seconds, next_end - now)
        self.busy = False

    def exclude(self, seconds: float) -> None:
        """This was a worker's time."""
        self.excluded += seconds


@dataclass(slots=True)
class Sleepers:
    """An executor whose workers sleep: so many of them, each trial for its time."""

    capacity: int
    clock: Clock
    durations: Iterator[float]

    def submit(self, job: Job) -> Asleep:
        assert isinstance(job, TaskJob)
        began = time.perf_counter()
        leave_result(job)
        self.clock.exclude(time.perf_counter() - began)
        end = self.clock.monotonic() + next(self.durations)
        heapq.heappush(self.clock.events, end)
        return Asleep(self.clock, end)


@dataclass(frozen=True, slots=True)
class Asleep:
    """A trial that takes its time."""

    clock: Clock
    end: float
    id: None = None

    def done(self) -> bool:
        over = self.clock.monotonic() >= self.end
        self.clock.busy = self.clock.busy or over
        return over

    def exception(self) -> None: ...
    def cancel(self, reason: BaseException) -> None: ...


def leave_result(job: TaskJob) -> None:
    """What a trial leaves for the sweep to read."""
    run = job.task.run
    write_json(run.folder / "train/trainer_state.json", {"log_history": []}, durable=False)
    (run.folder / "evaluation").mkdir()
    write_scores(run.folder, right=10)
    run.record |= {"status": "completed", "metrics": metrics(run.folder)}
    run.save(durable=False)


def simulate(trials: int, workers: int, minutes: tuple[float, float]) -> dict[str, float]:
    """A whole sweep through the sweeper itself: seconds of simulated time, and its own milliseconds for each trial."""
    chance = random.Random(7)
    durations = [60 * chance.uniform(*minutes) for _ in range(trials)]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(SPEC.format(data=Path("datasets/news").resolve()), encoding="utf-8")
        space = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "lora_rank": [4, 8, 16, 32]}
        section = Sweep.model_validate_json(json.dumps({"method": "random", "parameters": space, "trials": trials}))
        place, namespace = Sleepers(workers, clock, iter(durations)), vars(sweeper)
        real, namespace["time"] = namespace["time"], clock
        began, worked = clock.monotonic(), time.process_time()
        try:
            page = run_sweep(TrialFactory(load_project(spec), section), Silence(), Silence(), place)
        finally:
            namespace["time"] = real
    assert len(page["ranking"]) == trials
    makespan, least = clock.monotonic() - began, ideal(durations, workers)
    own = 1000 * (time.process_time() - worked - clock.excluded) / trials
    return {"makespan": makespan, "ideal": least, "ratio": makespan / least, "own_ms": own}


def ideal(durations: list[float], workers: int) -> float:
    """Seconds that the same trials in the same order take where handing them out takes none."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def simulated(trials: int, workers: int) -> dict[str, Any]:
    """The figures for each kind of trial, printed as they come."""
    found = {}
    for name, minutes in MINUTES.items():
        found[name] = simulate(trials, workers, minutes)
        print(f"{name}: {found[name]}", flush=True)
    return {"trials": trials, "workers": workers, "trials_of": found}


def simulation(measured: Mapping[str, Any]) -> str:
    """The table of the simulation."""
    lines = ["| trials | workers | a trial takes | makespan | ideal | makespan / ideal | our own ms a trial |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, one in measured["trials_of"].items():
        lines.append(
            f"| {measured['trials']:,} | {measured['workers']:,} | {name} | {one['makespan']:,.0f} s |"
            f" {one['ideal']:,.0f} s | {one['ratio']:.3f} | {one['own_ms']:.0f} |"
        )
    return "\n".join(lines)


# ---- docs/scaling.md


def generated(page: str) -> str:
    """The page with its generated parts, which stand between comments, as they should be now."""
    parts = {"paper": paper()}
    if MEASURED.is_file():
        parts["simulation"] = simulation(json.loads(MEASURED.read_text(encoding="utf-8")))
    for name, text in parts.items():
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        page = f"{before}<!-- {name} -->\n{text}\n{end}{after}"
    return page


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulate"]:
        trials, workers = (int(number) for number in sys.argv[2:4]) if len(sys.argv) > 3 else (10_000, 1_000)
        write_json(MEASURED, simulated(trials, workers))
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
