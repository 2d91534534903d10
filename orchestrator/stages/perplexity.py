"""ask-…, judge of a pretraining: its held-out texts ask nothing; each GGUF reads them, and the perplexity counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lib import layout
from orchestrator.lib.files import read_json, write_json
from orchestrator.lib.step import Step
from orchestrator.stages.asked import files_of, kinds_asked, made_by
from orchestrator.stages.base import Context, Stage

if TYPE_CHECKING:
    from orchestrator.evaluation.parity import Asked


@dataclass(frozen=True)
class ReadTexts(Stage):
    """What one GGUF gives each text, as log-likelihoods in nats, and whether it sees the tokens of training."""

    program = "read-texts"
    phase = "verify"
    optional = ("adapter",)
    gguf: str
    prompts: str
    """What each model gave the texts before, with the tokens of training."""
    answers: str
    parity: str
    max_new_tokens: int
    texts: str
    adapter: str | None = None

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One process for each GGUF."""
        return [_reading(context, kind) for kind in kinds_asked(context)] if context.kind.reads else []

    def run(self) -> None:
        """Write both."""
        from orchestrator.evaluation.parity import parity
        from orchestrator.evaluation.rows import read_objects, write_records
        from orchestrator.models.gguf import GgufModel

        rows = read_objects(Path(self.prompts))
        texts = [row["text"] for row in read_json(Path(self.texts))]
        read: list[dict[str, Any]] = []
        with GgufModel(Path(self.gguf), Path(self.adapter) if self.adapter else None) as model:
            seen = [
                same_tokens(row["id"], row["ids"], model.tokenize(text)) for row, text in zip(rows, texts, strict=True)
            ]
            for row, values in zip(rows, model.log_likelihoods([row["ids"] for row in rows]), strict=True):
                scored = [value for at, value in enumerate(values, 1) if at not in row["unscored"]]
                read.append({"id": row["id"], "text": float(sum(scored)), "tokens": len(scored)})
                print(f"{len(read)}/{len(rows)}", flush=True)
        write_records(Path(self.answers), read)
        write_json(Path(self.parity), parity(seen))


@dataclass(frozen=True)
class GatePerplexity(Stage):
    """The perplexity of every GGUF beside the tuned model's, and what the gate says of it."""

    program = "gate-perplexity"
    phase = "verify"
    measured: str
    artifacts: Mapping[str, str]
    parity: Mapping[str, str]
    files: Mapping[str, str]
    gate: Mapping[str, Any]
    summary: str

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        """One step where a pretraining has GGUFs to prove."""
        wanted = kinds_asked(context)
        if not context.kind.reads or not wanted:
            return []
        export = context.spec.export
        stage = cls(
            measured=layout.summary("perplexity"),
            artifacts={f"gguf-{kind}": layout.predictions(f"gguf-{kind}") for kind in wanted},
            parity={f"gguf-{kind}": layout.parity(f"gguf-{kind}") for kind in wanted},
            files={f"gguf-{kind}": layout.gguf(context.spec.name, kind) for kind in export.kinds},
            gate=export.gate.model_dump(exclude={"max_divergence"}),
            summary=layout.summary("judge"),
        )
        needs = ("perplexity", *(f"ask-{kind}" for kind in wanted))
        return [stage.step("judge", expects=(stage.summary,), needs=needs)]

    def run(self) -> None:
        """Write the summary: figures, what the gate has to say, and the smallest file that passes."""
        from orchestrator.evaluation import preference
        from orchestrator.evaluation.gate import judge_parity, judge_perplexity, with_causes
        from orchestrator.evaluation.recommend import recommend_perplexity

        metrics = read_json(Path(self.measured))["metrics"]
        metrics |= {name: figures(Path(file)) for name, file in self.artifacts.items()}
        values = {name: metrics[name][preference.PERPLEXITY]["value"] for name in (*self.artifacts, "tuned")}
        reports = {name: read_json(Path(file)) for name, file in self.parity.items()}
        failures = [said for name, report in reports.items() for said in judge_parity(name, report, 100.0, self.gate)]
        failures = with_causes(failures + judge_perplexity(values, self.gate), reports)
        sizes = {name: Path(file).stat().st_size for name, file in self.files.items()}
        best = recommend_perplexity(values, sizes, {failure.artifact for failure in failures})
        summary = {
            "metrics": metrics,
            "comparisons": [],
            "failures": [asdict(failure) for failure in failures],
            "recommendation": asdict(best) if best else None,
            "sizes": sizes,
        }
        write_json(Path(self.summary), summary)


def _reading(context: Context, kind: str) -> Step:
    artifact, (gguf, over) = f"gguf-{kind}", files_of(context, kind)
    answers, parity_file = layout.predictions(artifact), layout.parity(artifact)
    limit = context.spec.evaluate.max_new_tokens
    return ReadTexts(gguf, layout.READ_ROWS, answers, parity_file, limit, layout.EVAL_ROWS, over).step(
        f"ask-{kind}",
        expects=(answers, parity_file),
        needs=("prepare", "perplexity", made_by(context, kind)),
        inputs=context.picked("llama-cpp-python"),
        judges=True,
    )


def same_tokens(name: str, trained: Sequence[int], text: Sequence[int]) -> Asked:
    """The tokens of training beside those of llama.cpp.

    Training frames a text (BOS, EOS) and may cut it off; llama.cpp is given the text alone.
    """
    from orchestrator.evaluation.parity import Asked

    framed = next((at for at in range(2) if list(trained[at : at + len(text)]) == list(text[: len(trained) - at])), 0)
    kept = trained[framed : framed + len(text)]
    return Asked(name, kept, text[: len(kept)], same_text=True, answer=(), cut_off=False)


def figures(file: Path) -> dict[str, Any]:
    """The perplexity of an artifact, from what it gave each text."""

    import numpy as np

    from orchestrator.evaluation import preference
    from orchestrator.evaluation.rows import read_objects

    read = read_objects(file)
    values, tokens = (np.array([record[key] for record in read], dtype=np.float64) for key in ("text", "tokens"))
    found = preference.perplexity(values, tokens)
    return {"n": len(read), **{name: interval.to_json() for name, interval in found.items()}}
