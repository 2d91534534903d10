"""Adding a stage, a metric and an executor takes one entry in one list each: they are seen wherever such things are."""

from __future__ import annotations

import dataclasses
import io
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from orchestrator import executors, stages
from orchestrator.cli import cli
from orchestrator.evaluation.compare import Basis, compare
from orchestrator.evaluation.measure import measure
from orchestrator.evaluation.metric import METRICS, Metric
from orchestrator.evaluation.rows import Row
from orchestrator.executors.base import Wanted
from orchestrator.lib import layout
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import write_json
from orchestrator.lib.step import Step
from orchestrator.report.run_page import _beside
from orchestrator.report.table import artifact_table
from orchestrator.runs.results import summaries
from orchestrator.spec.load import load_project
from orchestrator.stages import chain
from orchestrator.stages.base import Context, Stage
from orchestrator.sweep.ranking import require_metric
from tests.test_stages import context_of

ROOT = Path(__file__).parent.parent
ROWS = [Row("1", "问", "体育", "体"), Row("2", "问", "政治", "政治"), Row("3", "问", "国际", "财经")]


@dataclasses.dataclass(frozen=True)
class CountRows(Stage):
    """A stage of one field."""

    program = "count-rows"
    phase = "evaluate"
    rows: str

    @classmethod
    def plan(cls, context: Context) -> list[Step]:
        return [cls("data/eval.json").step("count-rows", expects=("evaluation/rows.txt",), needs=("prepare",))]

    def run(self) -> None:
        Path("evaluation/rows.txt").write_text(self.rows)


def test_a_stage_is_one_class_and_one_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stages, "STAGES", (*stages.STAGES, CountRows))
    step = next(step for step in chain(context_of("spec.yaml")) if step.stage == "count-rows")
    assert step.argv[1:] == ("-m", "orchestrator.stages", "count-rows", "configs/count-rows.json")
    assert step.files == {"configs/count-rows.json": '{\n  "rows": "data/eval.json"\n}\n'}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluation").mkdir()
    CountRows("data/eval.json").run()
    assert (tmp_path / "evaluation/rows.txt").read_text() == "data/eval.json"


def test_a_metric_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    same_start = Metric("same_start", "same start", sample=lambda label, answer: float(label[:1] == answer[:1]))
    monkeypatch.setitem(METRICS, "same_start", same_start)
    found = measure(ROWS, "classification").metrics
    assert found["same_start"].value == pytest.approx(200 / 3)
    summary: dict[str, Any] = {"metrics": {"tuned": {name: interval.to_json() for name, interval in found.items()}}}
    text = io.StringIO()
    artifact_table(summary, Console(file=text, width=120))
    assert "same start" in text.getvalue() and "66.7" in text.getvalue()
    assert "same_start" in _beside("accuracy", summary["metrics"].values())
    require_metric(load_project(ROOT / "spec.yaml").spec, "same_start")


@pytest.fixture
def first_of_all() -> Iterator[Callable[[Metric], None]]:
    """Puts a metric in front of all others, so that it is the primary one of its tasks."""
    others = dict(METRICS)

    def put(metric: Metric) -> None:
        METRICS.clear()
        METRICS.update({metric.name: metric, **others})

    yield put
    METRICS.clear()
    METRICS.update(others)


def test_verdicts_are_about_a_primary_metric_of_ones_own(first_of_all: Callable[[Metric], None]) -> None:
    same_start = Metric(
        "same_start", "same start", tasks=("generation",), sentence="Of the tuned model's answers {} % {} begin right",
        sample=lambda label, answer: float(label[:1] == answer[:1]),
    )  # fmt: skip
    first_of_all(same_start)
    worse = [Row(row.id, row.prompt, row.label, "无") for row in ROWS]
    found = compare(ROWS, worse, Basis("generation"))
    assert (found.metric, found.value_b) == ("same_start", 0.0) and found.value_a == pytest.approx(200 / 3)
    first_of_all(dataclasses.replace(same_start, sample=None))
    with pytest.raises(InputError, match="same_start is no mean over rows"):
        compare(ROWS, worse, Basis("generation"))


def test_what_an_added_stage_measures_is_read(tmp_path: Path) -> None:
    figures = {"tuned": {"n": 3, "accuracy": {"value": 90.0}}, "base": {"n": 3}}
    write_json(tmp_path / layout.summary("score"), {"metrics": figures})
    added = {"metrics": {"tuned": {"beauty": {"value": 7.0}}}, "beauty-contest": {"sentence": "How nice."}}
    write_json(tmp_path / layout.summary("beauty-contest"), added)
    found = summaries(tmp_path)
    assert found["metrics"]["tuned"] == figures["tuned"] | added["metrics"]["tuned"]
    assert found["beauty-contest"] == added["beauty-contest"] and list(found["metrics"]) == ["tuned", "base"]


def nowhere(wanted: Wanted) -> executors.Executor:
    raise MissingError(f"no moon base for {wanted.parallel} jobs", "Build one.")


def test_an_executor_is_one_file_and_one_name(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setitem(executors.EXECUTORS, "moon", types.SimpleNamespace(create=nowhere))
    loaded = load_project(project / "spec.yaml", ("sweep.executor=moon", "sweep.parameters.learning_rate=[1.0e-3]"))
    assert loaded.spec.sweep is not None and loaded.spec.sweep.executor == "moon"
    monkeypatch.chdir(project)
    answer = CliRunner().invoke(cli, ["train", "--on", "moon"])
    assert isinstance(answer.exception, MissingError) and answer.exception.message == "no moon base for auto jobs"
    assert "--on [local|ray|slurm|moon]" in CliRunner().invoke(cli, ["train", "--help"]).output
    assert "'mars' is not one of local, ray, slurm, moon" in CliRunner().invoke(cli, ["train", "--on", "mars"]).output
