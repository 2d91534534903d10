"""Path names, all of them relative to a run's folder, so that a run can be moved and its configs stay true."""

from __future__ import annotations

from pathlib import Path

RECORD = "run.json"
RECORD_COPY = "run.copy.json"
"""The record of a run that has ended, a second time."""
SIGNATURE = "run.json.sig"
SPEC = "spec.yaml"
REPORT = "report.html"
LOCK = ".lock"
LOCKS = ".locks"
SWEEP = "sweep.json"
STUDY = "study.jsonl"
WORKER_ERROR = "ORCHESTRATOR-ERROR "
"""Starts the last line of a worker's log when it failed on purpose; the tool that started it reads it back."""
JOBS = "jobs"
"""What submitit keeps of the batch jobs of a sweep or a run."""

DATA = "data"
TRAIN_ROWS = "data/train.json"
EVAL_ROWS = "data/eval.json"
DATASET_INFO = "data/dataset_info.json"
ASKED_ROWS = "data/asked.json"
"""The held-out rows of a preference set as questions with one answer."""
PROMPTS = "data/prompts.jsonl"
VALIDATION = "data/validation.jsonl"
"""What the rows ask that a checkpoint is chosen by, as PROMPTS has it."""
PROMPTED = "data/prompted"
"""The held-out rows for the base model that is told the labels, and what it is told."""
PROMPTED_ROWS = "data/prompted/eval.json"
TOLD = "data/prompted/system.txt"
SERVING = "data/serving.json"
READ_ROWS = "evaluation/perplexity.jsonl"
"""What each model gave the held-out texts of a pretraining, with their tokens."""
FINDINGS = "data/findings.json"
GENERAL_ROWS = "evaluation/general.jsonl"
"""What base and tuned model give the answers to general prompts."""

TRAINED = "train"
KEPT = "kept"
"""The checkpoint that goes on, where it was chosen; else that is the last, in TRAINED."""
AS_MERGED = "export/as-merged"
"""The merged model as LLaMA-Factory left it."""
MERGED = "export/merged"
"""The same weights with the chat template of training: what is converted, served and pushed."""
MODELFILE = "export/Modelfile"


def trained(folder: Path) -> str:
    """What training left in a run's folder to go on with."""
    return KEPT if (folder / KEPT / "adapter_config.json").is_file() else TRAINED


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training, `checkpoint-STEP`, in order; copies with other names are none."""
    numbered = [path for path in folder.glob("checkpoint-*") if _step(path).isdecimal() and path.is_dir()]
    return sorted(numbered, key=lambda path: int(_step(path)))


def _step(checkpoint: Path) -> str:
    return checkpoint.name.removeprefix("checkpoint-")


def config(stage: str) -> str:
    """The rendered configuration of a stage."""
    return f"configs/{stage}.yaml"


def stage_config(stage: str) -> str:
    """The fields of a stage of ours."""
    return f"configs/{stage}.json"


def log(stage: str) -> str:
    """Everything a stage printed."""
    return f"logs/{stage}.log"


def generated(artifact: str) -> str:
    """LLaMA-Factory's own output folder for the predictions of an artifact."""
    return f"evaluation/generated-{artifact}"


def predictions(artifact: str) -> str:
    """The answers of an artifact, one JSON object {id, prompt, label, prediction} a line."""
    return f"evaluation/{artifact}.jsonl"


def parity(artifact: str) -> str:
    """Whether the artifact was asked the tokens it was trained on."""
    return f"evaluation/{artifact}.parity.json"


def answered(artifact: str) -> str:
    """What an artifact has answered so far, in tokens, one row a line."""
    return f"evaluation/{artifact}.answered.jsonl"


def likelihoods(artifact: str) -> str:
    """How likely an artifact finds each known label, in the order of the rows as they became known."""
    return f"evaluation/{artifact}.likelihoods.jsonl"


def confidence(artifact: str) -> str:
    """How sure an artifact is of each row, the least certain first."""
    return f"evaluation/{artifact}.confidence.jsonl"


GIVEN = "evaluation/given.jsonl"
"""The tuned model's answers that every artifact is given to read: {id, prompt, answer, own} a line, both as token ids;
`own` are the places of the prompt that are read, too, counted from its end."""


def expectations(artifact: str) -> str:
    """What an artifact expects at each token of those answers."""
    return f"evaluation/{artifact}.expectations.npz"


def divergence(artifact: str) -> str:
    """How far an artifact is from its reference: {id, tokens, divergence, probability, before, read,
    reading_divergence} a line."""
    return f"evaluation/{artifact}.divergence.jsonl"


def places(artifact: str) -> str:
    """What an artifact made of each token of those answers while it was asked; gone once its divergence is known."""
    return f"evaluation/{artifact}.divergence.npz"


def importance(name: str) -> str:
    """What matters in each weight matrix on the training rows: llama.cpp's importance matrix."""
    return f"export/{name}.imatrix"


def summary(stage: str) -> str:
    """The figures that a scoring stage measured."""
    return f"evaluation/summary-{stage}.json"


def gguf(name: str, quantisation: str) -> str:
    """A GGUF file; Ollama and llama.cpp name the quantisation at the end of the file name."""
    return f"export/{name}-{quantisation}.gguf"


def partial(path: str) -> str:
    """Where a file grows until it is whole; it is renamed only then."""
    return f"{path}.partial"


def project_of(spec_file: Path) -> Path:
    """The project a spec belongs to: the nearest folder at or above it that holds a spec.yaml, else its own folder.

    Paths in a spec are relative to this folder, so `specs/news-zh.yaml` names data as `datasets/…`. The spec that a run
    keeps, `runs/<id>/spec.yaml`, belongs to the project that the run does.
    """
    folder = spec_file.resolve().parent
    if any((folder / name).is_file() for name in (RECORD, RECORD_COPY)):
        folder = folder.parent.parent
    return next((parent for parent in (folder, *folder.parents) if (parent / SPEC).is_file()), folder)
