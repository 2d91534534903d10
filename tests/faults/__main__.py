"""`python -m tests.faults`: every fault, counted by kind."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.survival import example, inject


def main(each: int, seed: int, first: int, last: int) -> int:
    """Inject the faults with these numbers; returns 1 when one was not survived."""
    kinds: Counter[str] = Counter()
    died: Counter[str] = Counter()
    lost, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        chain = example(Path(folder))
        faults = chain.faults(each, random.Random(seed))
        print(f"{len(faults)} faults, seed {seed}", file=sys.stderr, flush=True)
        for number, fault in list(enumerate(faults, 1))[first - 1 : last]:
            work = Path(folder) / str(number)
            verdict = inject(fault, chain, work)
            kinds[fault.kind] += 1
            died[fault.kind] += bool(verdict.complaints)
            lost += verdict.lost
            for complaint in verdict.complaints:
                print(f"fault {number}, {fault.kind} at {fault.where}: {complaint}", file=sys.stderr, flush=True)
            shutil.rmtree(work)
    for kind, count in kinds.items():
        print(f"{count:5} {kind}{f', {died[kind]} not survived' if died[kind] else ''}")
    total = kinds.total()
    print(f"{total} faults injected, {total - died.total()} survived, {lost} artifacts lost")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return int(bool(died.total() or lost))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Inject faults into whole chains.")
    parser.add_argument("--each", type=int, default=20, help="moments for each kind of blow to the tool")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments")
    parser.add_argument("--first", type=int, default=1, metavar="K", help="begin with fault K")
    parser.add_argument("--last", type=int, metavar="K", help="end with fault K")
    sys.exit(main(**vars(parser.parse_args())))
