"""Runs as MLflow runs, for people whose records live there. mlflow is no dependency of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.runs.compare import settings
from orchestrator.runs.store import Run
from orchestrator.runs.training_log import curve, read_log

TAG = "orchestrator.run"
STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "pruned": "KILLED"}
FILES = (layout.SPEC, layout.REPORT)
BATCH = 100
"""MLflow takes at most 100 parameters and 1000 metrics at a time."""


def export(runs: Sequence[Run], uri: str) -> list[str]:
    """Log runs to a tracking server or database, each once; returns the ids that were new.

    Raises MissingError without mlflow and InputError when it does not accept the URI.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingError(f"mlflow cannot be used: {error}", "pip install mlflow-skinny, then try again.") from None
    try:
        client = MlflowClient(tracking_uri=uri)
        return [run.id for run in runs if _export(client, run)]
    except MlflowException as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"mlflow refuses {uri!r}: {first_line}", "Try sqlite:///mlflow.db, or a server's URL."
        ) from error


def _export(client: Any, run: Run) -> bool:
    experiment = _experiment(client, run.record["name"])
    if client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{run.id}'"):
        return False
    started = _milliseconds(run.record["created_at"])
    identifier = client.create_run(experiment, start_time=started, run_name=run.id).info.run_id
    _log(client, identifier, run, started)
    for name in FILES:
        if (run.folder / name).is_file():
            client.log_artifact(identifier, str(run.folder / name))
    if finished := run.record.get("finished_at"):
        client.set_terminated(identifier, STATUS.get(run.record["status"], "FAILED"), _milliseconds(finished))
    client.set_tag(identifier, TAG, run.id)  # last: what has it is whole, and is not exported again
    return True


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _log(client: Any, identifier: str, run: Run, moment: int) -> None:
    from mlflow.entities import Metric, Param

    params = [Param(key, str(value)[:6000]) for key, value in settings(run).items()]
    metrics = [Metric(key, value, moment, step) for key, value, step in measured(run)]
    for first in range(0, max(len(params), len(metrics)), BATCH):
        batch = slice(first, first + BATCH)
        client.log_batch(identifier, metrics=metrics[batch], params=params[batch])


def measured(run: Run) -> Iterator[tuple[str, float, int]]:
    """Key, value and step of every figure and every entry of the training log."""
    for artifact, figures in run.record.get("metrics", {}).items():
        for metric, figure in figures.items():
            if isinstance(figure, dict):
                yield f"{artifact}/{metric}", figure["value"], 0
    log = read_log(run.folder)
    for key in ("loss", "eval_loss", "lr"):
        for step, value in curve(log, key):
            yield f"train/{key}", value, int(step)


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
