"""A metric of the user's own: one more entry for a run, and one line for whatever is wrong with it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.evaluation import own
from orchestrator.evaluation.metric import METRICS
from orchestrator.evaluation.rows import Row, write_rows
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json, write_text
from orchestrator.report.console import _foreign_code
from orchestrator.report.table import artifact_table
from orchestrator.spec.load import build_spec, load_project
from orchestrator.spec.sections import Evaluate, Model, Spec
from orchestrator.stages import score
from orchestrator.stages.base import Context
from orchestrator.sweep.ranking import require_metric
from tests.test_stages import context_of

GOOD = '''\
import json

from orchestrator.evaluation import Row


def json_fields(row: Row) -> float:
    """Share of the label's fields that the answer has."""
    try:
        wanted, given = json.loads(row.truth), json.loads(row.answer)
    except ValueError:
        return 0
    return sum(given.get(key) == value for key, value in wanted.items()) / len(wanted)
'''
LABEL = '{"城市": "北京", "人": 3}'
ANSWERS = {"tuned": LABEL, "gguf-f16": '{"城市": "北京", "人": 2}', "gguf-q2_k": "no JSON"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for artifact, answer in ANSWERS.items():
        write_rows(Path(f"evaluation/{artifact}.jsonl"), [Row(str(n), "?", LABEL, answer) for n in range(10)])
    return tmp_path


def scored(source: str, **changes: Any) -> dict[str, Any]:
    write_text(Path("configs/own/metrics.py"), source)
    config: dict[str, Any] = {
        "task": "generation",
        "artifacts": {name: f"evaluation/{name}.jsonl" for name in ANSWERS},
        "summary": "summary.json",
        "gate": {"max_accuracy_drop": 0.6},
        "metrics": ["metrics.py:json_fields"],
        **changes,
    }
    score.Score(**config).run()
    found: dict[str, Any] = read_json(Path("summary.json"))
    return found


def test_it_is_measured_shown_and_judged(folder: Path) -> None:
    summary = scored(GOOD)
    values = {name: figures["json_fields"]["value"] for name, figures in summary["metrics"].items()}
    assert values == {"tuned": 100, "gguf-f16": 50, "gguf-q2_k": 0}
    assert "json_fields" not in METRICS
    said = [failure["sentence"] for failure in summary["failures"] if failure["what"] == "json_fields_drop"]
    assert said == ["gguf-q2_k loses 100.0 points of json_fields against tuned (0.0 after 100.0); the gate allows 60.0"]
    text = io.StringIO()
    artifact_table(summary, Console(file=text, width=120))
    assert "json fields" in text.getvalue()


WRONG = {
    "raise KeyError('城市')": "fails on row 0: KeyError: '城市'",
    "return 'good'": "returns 'good' for row 0, not a number from 0 to 1",
    "return float('nan')": "returns nan for row 0",
    "return 50": "returns 50 for row 0",
    "return None": "returns None for row 0",
    "raise SystemExit(3)": "fails on row 0: SystemExit: 3",
    "\n    while True: pass": "fails on row 0: it took more than 0.1 seconds",
    "return 1/0": "fails on row 0: ZeroDivisionError",
}


@pytest.mark.parametrize("body", WRONG)
def test_what_it_gets_wrong_is_one_line(body: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "SECONDS", 0.1)
    with pytest.raises(InputError) as refused:
        scored(f"def json_fields(row): {body}\n")
    assert refused.value.message.startswith(f"evaluate.metrics: metrics.py:json_fields {WRONG[body]}")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_the_kind", "cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("json_fields = 3", "the file defines no such function"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(source: str, said: str, folder: Path) -> None:
    with pytest.raises(InputError, match=said):
        scored(source)


SPEC: dict[str, Any] = {"name": "n", "data": {"train": "a.json", "eval_fraction": 0.5}}


@pytest.mark.parametrize(
    ("metrics", "trust", "said"),
    [
        (["metrics.py:json_fields"], False, "is code: read it, then allow it with evaluate.trust_code: true"),
        (["metric.py:json_fields"], True, "no file 'metric.py'"),
        (["metrics.py:json_field"], True, "no function 'json_field' in metrics.py; did you mean json_fields?"),
        (["metrics.py:accuracy"], True, "there is a metric 'accuracy' already"),
        (["metrics.py:json_fields", "metrics.py:json_fields"], True, "there is a metric 'json_fields' already"),
        (["broken.py:f"], True, "broken.py is no Python (line 1)"),
        (["metrics:f"], True, "cannot be 'metrics:f'; write FILE.py:FUNCTION"),
        (["../metrics.py:f"], True, "leads out of the project"),
        (["metrics.py"], True, "no function '' in metrics.py; it defines json_fields"),
    ],
)
def test_a_spec_names_functions_that_are_there(metrics: list[str], trust: bool, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "metrics.py").write_text(GOOD + "\n\ndef accuracy(row): return 1\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(InputError) as refused:
        build_spec({**SPEC, "evaluate": {"metrics": metrics, "trust_code": trust}}, tmp_path)
    assert said in str(refused.value)


def test_its_text_is_part_of_the_run_and_a_sweep_may_rank_by_it(project: Path) -> None:
    (project / "own").mkdir()
    (project / "own/metrics.py").write_text(GOOD)
    changes = ("evaluate.metrics=[own/metrics.py:json_fields]", "evaluate.trust_code=true")
    spec = load_project(project / "spec.yaml", changes).spec
    require_metric(spec, "json_fields")
    (step,) = score.Score.plan(_context(project, spec))
    assert step.files["configs/own/own.metrics.py"] == GOOD
    assert '"metrics": [\n    "own/metrics.py:json_fields"\n  ]' in step.files["configs/score.json"]


def _context(project: Path, spec: Spec) -> Context:
    return dataclasses.replace(context_of("spec.yaml"), spec=spec, project=project)


def test_a_plan_says_that_code_will_run() -> None:
    spec = Spec.model_construct(model=Model(), evaluate=Evaluate(metrics=("metrics.py:json_fields",), trust_code=True))
    (line,) = _foreign_code(spec)
    assert line == "! evaluate.trust_code is on: metrics.py:json_fields will run on this machine"


def test_the_examples_of_the_documentation_work(folder: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/evaluation.md").read_text(encoding="utf-8")
    source = page.partition("```python\n")[2].partition("```")[0]
    names = own.functions(source)
    assert len(names) == 5
    write_text(Path("configs/own/metrics.py"), source)
    rows = {
        "json_fields": (LABEL, '{"人": 3}', 0.5),
        "number_close": ("3.2", "about 3.21 metres", 1),
        "short_enough": ("", "短", 1),
        "keywords": ("北京、上海", "从上海出发", 0.5),
        "same_language": ("", "四月", 1),
    }
    with own.registered([f"metrics.py:{name}" for name in names]):
        for name, (label, answer, wanted) in rows.items():
            of_row = METRICS[name].of_row
            assert of_row is not None
            assert of_row(Row("1", "今天几号？", label, answer)) == wanted
            assert of_row(Row("2", "?", label or "x", "")) in (0, 1)
