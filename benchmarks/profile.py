"""python -m benchmarks.profile RUN STAGE [STEPS]: where the processor time of a training or a prediction goes.

The stage is carried out again, in a copy of the run, by the program and the configuration that the run had.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.lib.files import read_json
from orchestrator.stages.llamafactory import LlamaFactory

SHOWN = 14


def main() -> None:
    """Print seconds before, in and after the work itself, and what the work consists of."""
    run, stage = Path(sys.argv[1]).resolve(), sys.argv[2]
    steps = [f"max_steps={sys.argv[3]}"] if len(sys.argv) > 3 else []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "configs", *(["train"] if stage != "train" else [])):
            shutil.copytree(run / name, Path(folder, name))
        os.chdir(folder)
        sys.argv = ["profile", "llamafactory", "", *steps]
        profile(stage)


def profile(stage: str) -> None:
    """Carry the stage out under torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    began = time.process_time()
    from transformers import Trainer

    marks: dict[str, float] = {}
    work = LlamaFactory(**read_json(Path(f"configs/{stage}-speed.json")))
    with profile(activities=[ProfilerActivity.CPU]) as found, measured(Trainer, marks):
        imported = time.process_time()
        work.run()
    ended = time.process_time()
    for name, seconds in (
        ("imports", imported - began),
        ("arguments, data, model", marks["begins"] - imported),
        ("train() or predict() itself", marks["ends"] - marks["begins"]),
        ("saving, scores, figures", ended - marks["ends"]),
    ):
        print(f"{seconds:7.1f} s  {name}")
    averages = found.key_averages()
    whole = sum(event.self_cpu_time_total for event in averages)
    for event in sorted(averages, key=lambda one: -one.self_cpu_time_total)[:SHOWN]:
        print(f"{event.self_cpu_time_total / whole:7.1%}  {event.key} × {event.count}")


@contextmanager
def measured(trainer: Any, marks: dict[str, float]) -> Iterator[None]:
    """Note when a trainer's own work begins and ends, in seconds of processor time."""
    own = {name: getattr(trainer, name) for name in ("train", "predict")}

    def timed(name: str) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            marks["begins"] = time.process_time()
            try:
                return own[name](self, *args, **kwargs)
            finally:
                marks["ends"] = time.process_time()

        return call

    for name in own:
        setattr(trainer, name, timed(name))
    try:
        yield
    finally:
        for name, method in own.items():
            setattr(trainer, name, method)


if __name__ == "__main__":
    main()
