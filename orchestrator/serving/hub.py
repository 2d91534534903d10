"""To a hub: what a run made, with a card written from its record, into a private repository.

The token comes from the environment only (HF_TOKEN, MODELSCOPE_API_TOKEN), the address from HF_ENDPOINT.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.evaluation.learnt import gain, gain_sentence
from orchestrator.evaluation.metric import METRICS
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError, StageError, reason
from orchestrator.lib.files import read_json, write_json, write_text
from orchestrator.lib.render import Renderer
from orchestrator.models.builtin import licence
from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, bundle
from orchestrator.serving.proven import MODEL_FILES, require_proven

STATED = tuple(metric.name for metric in METRICS.values() if metric.on_card)
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
        gain=gain(summaries(run.folder)),
        gain_sentence=gain_sentence,
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
    return {"n": figures["n"], **{name: figures[name] for name in STATED if name in figures}}


def _parity(run: Run, kind: str) -> dict[str, Any]:
    name = f"gguf-{kind}"
    file = run.folder / layout.parity(name)
    found: dict[str, Any] = read_json(file) if file.is_file() else {}
    agreement = run.record["metrics"].get(name, {}).get("agreement_with_tuned")
    return {**found, "agreement": agreement, "complaints": artifacts.violations(run, kind)}


def _yaml(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Upload:
    """One file and its name in the repository."""

    source: Path
    name: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.source.stat().st_size


@dataclass(frozen=True, slots=True)
class Target:
    """A repository: `hf:ORG/NAME` or `modelscope:ORG/NAME`."""

    source: str
    repository: str
    public: bool = False


def collect(run: Run, wanted: str, project: Path, force: bool) -> list[Upload]:
    """The files to upload: the adapter, the merged model (`tuned`), or a GGUF with its Modelfile; first the card.

    Raises GateError for a GGUF that the gate refused, and for what is not as it was proven, unless forced.
    """
    if wanted == "base":
        raise InputError("the base model is not ours to upload", "Choose --artifact lora, tuned or a GGUF.")
    require_proven(run, wanted, force)
    if wanted == "lora":
        found = _without_paths(_folder(run.folder / layout.trained(run.folder), run), run)
    elif wanted == "tuned":
        found = _folder(run.folder / layout.MERGED, run)
    else:
        modelfile, *models = bundle.files(run, artifacts.choose_gguf(run, wanted, force))
        found = [Upload(modelfile, "Modelfile"), *(Upload(path, path.name) for path in models)]
    card = run.folder / "export" / f"card-{wanted}.md"
    write_text(card, model_card(run, wanted, project))
    return [Upload(card, CARD), *found]


def push(target: Target, uploads: list[Upload], message: str) -> str:
    """Upload, in one commit where the hub can; returns the address. Raises MissingError without a token."""
    variable = "HF_TOKEN" if target.source == "hf" else "MODELSCOPE_API_TOKEN"
    token = os.environ.get(variable)
    if not token:
        raise MissingError(f"{variable} is not set", f"Make a token with write access and export {variable}=…")
    if target.source == "hf":
        return _to_hugging_face(target, uploads, message, token)
    return _to_modelscope(target, uploads, message, token)


def _to_hugging_face(target: Target, uploads: list[Upload], message: str, token: str) -> str:
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    operations = [CommitOperationAdd(path_in_repo=one.name, path_or_fileobj=str(one.source)) for one in uploads]
    try:
        made = api.create_repo(target.repository, private=not target.public, exist_ok=True)
        api.create_commit(target.repository, operations, commit_message=message)
    except HfHubHTTPError as error:
        raise StageError(
            f"the hub refused {target.repository}: {reason(error)}", "Has the token write access?"
        ) from error
    except (httpx.TransportError, OSError) as error:  # hf_xet raises ConnectionError
        raise MissingError(f"the hub does not answer: {reason(error)}", "Check the network and HF_ENDPOINT.") from error
    return str(made)


def _to_modelscope(target: Target, uploads: list[Upload], message: str, token: str) -> str:
    from modelscope.hub.api import HubApi
    from modelscope.hub.constants import ModelVisibility

    api, same = HubApi(), {"repo_type": "model", "token": token}
    visibility = ModelVisibility.PUBLIC if target.public else ModelVisibility.PRIVATE
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its client prints what it does
            api.create_repo(target.repository, visibility=visibility, exist_ok=True, **same)
            for one in uploads:
                api.upload_file(target.repository, str(one.source), one.name, commit_message=message, **same)
    except Exception as error:  # its client raises a dozen kinds
        raise StageError(f"ModelScope refused {target.repository}: {reason(error)}", "Is the token valid?") from error
    return f"{target.source}:{target.repository}"


def _folder(folder: Path, run: Run) -> list[Upload]:
    if not folder.is_dir():
        raise MissingError(f"run {run.id} has no {folder.name}/ yet", "Make it with `orchestrator export`.")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and MODEL_FILES.fullmatch(path.name))
    return [Upload(path, path.name) for path in paths]


def _without_paths(uploads: list[Upload], run: Run) -> list[Upload]:
    """PEFT writes the base model's folder on this machine into the adapter's configuration; others need its name."""
    clean = run.folder / "export/adapter_config.json"
    config = read_json(run.folder / layout.trained(run.folder) / "adapter_config.json")
    write_json(clean, {**config, "base_model_name_or_path": base_name(run)})
    return [Upload(clean, one.name) if one.name == clean.name else one for one in uploads]
