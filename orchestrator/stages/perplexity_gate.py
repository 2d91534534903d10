"""The perplexity of every GGUF beside the tuned model's, and the gate's verdict: `judge_perplexity CONFIG.json`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.evaluation import preference
from orchestrator.evaluation.gate import judge_parity, judge_perplexity, recommend_perplexity, with_causes
from orchestrator.evaluation.rows import read_records
from orchestrator.lib.files import read_json, write_json
from orchestrator.stages import entry


def main(config: Path) -> None:
    """Write the summary: figures, what the gate has to say, and the smallest file that passes."""
    wanted = read_json(config)
    metrics = read_json(Path(wanted["measured"]))["metrics"]
    metrics |= {name: figures(Path(file)) for name, file in wanted["artifacts"].items()}
    values = {name: metrics[name][preference.PERPLEXITY]["value"] for name in (*wanted["artifacts"], "tuned")}
    reports = {name: read_json(Path(file)) for name, file in wanted["parity"].items()}
    failures = [said for name, report in reports.items() for said in judge_parity(name, report, 100.0, wanted["gate"])]
    failures = with_causes(failures + judge_perplexity(values, wanted["gate"]), reports)
    sizes = {name: Path(file).stat().st_size for name, file in wanted["files"].items()}
    best = recommend_perplexity(values, sizes, {failure.artifact for failure in failures})
    summary = {
        "metrics": metrics,
        "comparisons": [],
        "failures": [asdict(failure) for failure in failures],
        "recommendation": asdict(best) if best else None,
        "sizes": sizes,
    }
    write_json(Path(wanted["summary"]), summary)


def figures(file: Path) -> dict[str, Any]:
    """The perplexity of an artifact, from what it gave each text."""
    read = [record for _, record in read_records(file)]
    values, tokens = (np.array([record[key] for record in read], dtype=np.float64) for key in ("text", "tokens"))
    found = preference.perplexity(values, tokens)
    return {"n": len(read), **{name: interval.to_json() for name, interval in found.items()}}


if __name__ == "__main__":
    entry.run(main)
