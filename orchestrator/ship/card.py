"""A model card written from a run's record: nothing in it was typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from orchestrator import layout
from orchestrator.files import read_json
from orchestrator.models.licence import licence
from orchestrator.records import Run
from orchestrator.render import Renderer
from orchestrator.ship import artifacts

FIGURES = (
    "accuracy", "balanced_accuracy", "macro_f1", "rouge1", "rougeL", "bleu", "exact_match",
    "preference_accuracy", "reward_accuracy", "reward_margin", "perplexity",
)  # fmt: skip
TRAINING = ("stage", "finetuning_type", "learning_rate", "num_train_epochs", "lora_rank", "cutoff_len", "seed")


def model_card(run: Run, artifact: str, project: Path) -> str:
    """The README.md of a repository: data, figures with intervals, parity, limits, licence, lineage."""
    lineage, metrics = run.record["lineage"], run.record["metrics"]
    of_hub = "/" in base_name(run)
    training = _yaml(run.folder / layout.config("train"))
    return Renderer(project)(
        "model_card.md.j2",
        run=run.record,
        artifact=artifact,
        base=base_name(run),
        repository=base_name(run) if of_hub else None,
        licence=licence(Path(str(training.get("model_name_or_path", "")))),
        metrics={name: _figures(metrics[name]) for name in metrics},
        training={key: training[key] for key in TRAINING if key in training},
        serving=artifacts.serving(run),
        parity={kind: _parity(run, kind) for kind in artifacts.ggufs(run)},
        lineage=lineage,
        packages=run.record["environment"].get("packages", {}),
    )


def base_name(run: Run) -> str:
    """The base model's name for others: its repository, or the last part of a name or folder of this machine."""
    model = run.record["lineage"].get("base_model", {})
    while "run" in model:  # what an earlier run made says nothing to others; what that was made from does
        model = model.get("base_model") or {}
    base = model.get("name", "unknown")
    source, _, repository = base.partition(":")
    return repository.partition("@")[0] if source in ("hf", "modelscope") else Path(repository or base).name


def _figures(figures: dict[str, Any]) -> dict[str, Any]:
    return {"n": figures["n"], **{key: figures[key] for key in FIGURES if key in figures}}


def _parity(run: Run, kind: str) -> dict[str, Any]:
    name = f"gguf-{kind}"
    file = run.folder / layout.parity(name)
    found: dict[str, Any] = read_json(file) if file.is_file() else {}
    agreement = run.record["metrics"].get(name, {}).get("agreement_with_tuned")
    return {**found, "agreement": agreement, "complaints": artifacts.complaints(run, kind)}


def _yaml(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
