"""python -m benchmarks [--only NAME,…] [--repeats N]: measure against the bare tools; write results.json, README.md.

On a GPU, with a model worth it, add --set model.base=hf:Qwen/Qwen2.5-0.5B-Instruct --set train.bf16=true.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import chain, data_check, evaluation, growth, records, startup, sweep, vocabulary
from benchmarks.harness import ROOT, Bench, machine
from orchestrator.lib.files import read_json, write_json, write_text

BENCHMARKS = {
    "startup": startup.startup,
    "typo": startup.typo,
    "plan": startup.plan,
    "train": chain.train,
    "chain": chain.chain,
    "throughput": chain.throughput,
    "vocabulary": vocabulary.vocabulary,
    "sweep": sweep.sweep,
    "evaluation": evaluation.evaluation,
    "vllm": evaluation.vllm,
    "headlines": chain.headlines,
    "judge": chain.judge,
    "records": records.records,
    "growth": growth.growth,
    "data": data_check.data_check,
}
RESULTS = ROOT / "benchmarks" / "results.json"
README = ROOT / "benchmarks" / "README.md"
START, END = "<!-- results -->", "<!-- end of results -->"


@click.command()
@click.option("--only", metavar="NAMES", help=f"Some of {', '.join(BENCHMARKS)}.")
@click.option("--repeats", default=3, show_default=True, help="Turns of each way; medians are kept.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Of every job, such as model.base=hf:ORG/NAME.")
@click.option("--work", type=click.Path(path_type=Path), help="Where to run; kept. [a temporary folder]")
def main(only: str | None, repeats: int, sets: tuple[str, ...], work: Path | None) -> None:
    """Measure, and add what was measured to the results."""
    names = only.split(",") if only else list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        raise click.UsageError(f"no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench((work or Path(temporary)).resolve(), repeats, sets)
        bench.work.mkdir(parents=True, exist_ok=True)
        print(f"on {_machine(machine())}")
        for name in names:
            before = len(bench.rows)
            BENCHMARKS[name](bench)
            keep(name, [asdict(row) for row in bench.rows[before:]], bench)


def keep(name: str, rows: list[dict[str, Any]], bench: Bench) -> None:
    """Replace the results of one benchmark and the table in the README."""
    results = read_json(RESULTS) if RESULTS.is_file() else {}
    results[name] = {"machine": machine(), "repeats": bench.repeats, "sets": bench.sets, "rows": rows}
    write_json(RESULTS, {known: results[known] for known in BENCHMARKS if known in results})
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(START)
    write_text(README, head + START + "\n" + table(results) + END + rest.partition(END)[2])


def table(results: dict[str, Any]) -> str:
    """The results in Markdown, one line each."""
    lines = ["| what | measured | target | | note |", "|---|---|---|---|---|"]
    for name in (known for known in BENCHMARKS if known in results):
        for row in results[name]["rows"]:
            mark = "reached" if row["reached"] else "**missed**"
            lines.append(f"| {row['what']} | {row['value']:.3g} | {row['target']} | {mark} | {row['note']} |")
    machines = {_machine(entry["machine"]) for entry in results.values()}
    return "\n".join([*lines, "", *(f"Measured on {one}." for one in sorted(machines)), ""])


def _machine(facts: dict[str, Any]) -> str:
    gpu = ", ".join(facts["gpu"]) or "no GPU"
    return f"{facts['cores']} cores of {facts['processor']}, {facts['memory_gib']} GiB, {gpu}, Python {facts['python']}"


if __name__ == "__main__":
    main()
