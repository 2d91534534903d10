"""`python -m tests.faults [moments per kind] [seed]`: every fault, counted by kind."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.survival import example, inject


def main(each: int = 20, seed: int = 0) -> int:
    """Inject all faults; returns 1 when one was not survived."""
    kinds: Counter[str] = Counter()
    died: Counter[str] = Counter()
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        chain = example(Path(folder))
        for number, fault in enumerate(chain.faults(each, random.Random(seed))):
            work = Path(folder) / str(number)
            verdict = inject(fault, chain, work)
            kinds[fault.kind] += 1
            died[fault.kind] += bool(verdict.complaints)
            lost += verdict.lost
            for complaint in verdict.complaints:
                print(f"{fault.kind} at {fault.where}: {complaint}", file=sys.stderr, flush=True)
            shutil.rmtree(work)
    for kind, count in kinds.items():
        print(f"{count:5} {kind}{f', {died[kind]} not survived' if died[kind] else ''}")
    total = kinds.total()
    print(f"{total} faults injected, {total - died.total()} survived, {lost} artifacts lost")
    return int(bool(died.total() or lost))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
