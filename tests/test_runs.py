"""Many runs: listed, ranked, compared, removed and exported."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.cli.runs import runs as command
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.lib.files import write_json, write_text
from orchestrator.report.run_list import age, settings, told_apart
from orchestrator.runs import prune, query, store
from orchestrator.runs.compare import differing, side_by_side
from orchestrator.runs.export import export
from orchestrator.runs.locks import locked
from orchestrator.runs.query import Wanted
from orchestrator.runs.store import Run
from orchestrator.spec.load import effective
from tests.example_runs import make_run

Call = Callable[..., Result]


def measured(runs_dir: Path, identifier: str, accuracy: float | None, **values: Any) -> Run:
    """A run that says it was measured; `identifier` begins with the date that sorts it."""
    run = store.create(runs_dir, identifier.split("-")[1], status="completed")
    figures = {"n": 100, "accuracy": {"value": accuracy, "low": 1.0, "high": 99.0}}
    metrics = {} if accuracy is None else {"tuned": figures, "gguf-q8_0": {"accuracy": {"value": 100 - accuracy}}}
    folder = run.folder.rename(runs_dir / identifier)
    made = Run(folder, run.record | {"id": identifier, "metrics": metrics} | values)
    made.save()
    return made


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    stages = {"train": {"status": "completed", "seconds": 2.5, "outputs": []}}
    measured(folder, "1-news-a", 80, sweep={"id": "s", "parameters": {"learning_rate": 1e-4}}, stages=stages)
    measured(folder, "2-news-b", 60, sweep={"id": "s", "parameters": {"learning_rate": 1e-3}})
    measured(folder, "3-news-c", None, status="failed")
    measured(folder, "4-other-d", 70)
    return folder


@pytest.fixture
def call(runs_dir: Path) -> Call:
    def called(*arguments: str) -> Result:
        return CliRunner().invoke(command, [*arguments, "--runs-dir", str(runs_dir)])

    return called


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), "4-other-d 3-news-c 2-news-b 1-news-a"),
        (Wanted(name="news"), "3-news-c 2-news-b 1-news-a"),
        (Wanted(name="*e*"), "4-other-d 3-news-c 2-news-b 1-news-a"),
        (Wanted(status="failed"), "3-news-c"),
        (Wanted(where=("accuracy>60",)), "4-other-d 1-news-a"),
        (Wanted(where=("accuracy >= 60", "accuracy != 70")), "2-news-b 1-news-a"),
        (Wanted(where=("gguf-q8_0.accuracy=40",)), "2-news-b"),
        (Wanted(where=("learning_rate<5e-4",)), "1-news-a"),
        (Wanted(where=("seconds>2",)), "1-news-a"),
        (Wanted(sort="accuracy"), "1-news-a 4-other-d 2-news-b 3-news-c"),
        (Wanted(sort="seconds"), "4-other-d 3-news-c 2-news-b 1-news-a"),
    ],
)
def test_which_runs_in_which_order(runs_dir: Path, wanted: Wanted, found: str) -> None:
    assert " ".join(line["id"] for line in query.listing(runs_dir, wanted)) == found


@pytest.mark.parametrize(
    "command",
    ["runs show", "report", "verify", "chat", "serve", "push ollama:x", "push hf:a/b", "evaluate --endpoint http://a/v1"],
)  # fmt: skip
def test_every_command_finds_the_runs_of_the_project_from_a_folder_below(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "spec.yaml", "name: x\n")
    (tmp_path / "datasets").mkdir()
    monkeypatch.chdir(tmp_path / "datasets")

    def find(runs_dir: Path, wanted: str | None) -> Path:
        raise InputError(str(runs_dir))

    monkeypatch.setattr(store, "find_folder", find)
    assert str(CliRunner().invoke(cli, command.split()).exception) == str(tmp_path / "runs")


def test_a_line_is_flat(runs_dir: Path) -> None:
    [line] = query.listing(runs_dir, Wanted(where=("accuracy=80",), show=("learning_rate",)))
    head = {"id": "1-news-a", "name": "news", "status": "completed", "sweep": "s", "seconds": 2.5}
    assert line == {**head, "created_at": line["created_at"], "accuracy": 80.0, "learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(where=("accuracy~70",)), "'accuracy~70' is no condition"),
        (Wanted(where=("accuracy>1e",)), "'accuracy>1e' is no condition"),
        (Wanted(sort="acuracy"), "no run has a figure or parameter 'acuracy'"),
        (Wanted(show=('a"b',)), "no run has a figure"),
    ],
)
def test_what_cannot_be_asked(runs_dir: Path, wanted: Wanted, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        query.listing(runs_dir, wanted)
    assert caught.value.hint


def test_the_best(runs_dir: Path) -> None:
    assert query.best(runs_dir)["id"] == "1-news-a"
    assert query.best(runs_dir, metric="gguf-q8_0.accuracy")["id"] == "2-news-b"
    assert query.best(runs_dir, name="other")["id"] == "4-other-d"
    with pytest.raises(InputError, match="no finished run of 'nothing' was measured"):
        query.best(runs_dir, name="nothing")


def test_a_lower_perplexity_is_the_better_one(tmp_path: Path) -> None:
    for identifier, value in (("1-poems-a", 9.0), ("2-poems-b", 30.0)):
        measured(tmp_path, identifier, None, metrics={"tuned": {"n": 5, "perplexity": {"value": value}}})
    assert query.best(tmp_path)["id"] == "1-poems-a"


def test_nothing_to_list(tmp_path: Path) -> None:
    assert query.listing(tmp_path / "none", Wanted()) == []
    assert query.documents(tmp_path / "none", Wanted()) == '{"runs": []}'


def test_list_prints_lines_csv_and_json(call: Call) -> None:
    lines = call("list", "--sort", "accuracy").stdout.splitlines()
    assert lines[0].split() == ["id", "age", "status", "base", "differs", "size", "accuracy"]
    assert [line.split()[0] for line in lines[1:]] == ["1-news-a", "4-other-d", "2-news-b", "3-news-c"]
    assert [row["accuracy"] for row in csv.DictReader(call("list", "--csv").stdout.splitlines())] == [
        "70",
        "",
        "60",
        "80",
    ]
    listed = json.loads(call("list", "--json", "--where", "accuracy=80").stdout)["runs"]
    assert [(run["id"], run["stages"]) for run in listed] == [
        ("1-news-a", {"train": {"status": "completed", "seconds": 2.5}})
    ]


def test_list_folds_the_trials_of_a_sweep(call: Call) -> None:
    lines = call("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["4-other-d", "3-news-c", "s"]
    assert "2 trials" in lines[3] and lines[3].split()[-1] == "80"  # the better of 80 and 60
    assert len(call("list", "--trials").stdout.splitlines()) == 5


def test_show_takes_a_sweep(call: Call, runs_dir: Path) -> None:
    trials = [
        {"number": 1, "run": "1-news-a", "parameters": {"learning_rate": 1e-4}, "status": "failed", "reason": "x"}
    ]
    page = {"id": "9-news-sweep-f", "status": "completed", "kind": "sweep", "trials": trials, "ranking": [],
            "parameters": {"learning_rate": [1e-4]}, "spec": "spec.yaml", "total": 1, "metric": "accuracy"}  # fmt: skip
    write_json(runs_dir / "9-news-sweep-f/sweep.json", page)
    said = call("show", "sweep-f").stdout
    assert "9-news-sweep-f  completed\n1 trial of 1, spec spec.yaml; learning_rate: [0.0001]\n" in said
    assert "1 of 1 trial failed" in said
    assert json.loads(call("show", "sweep-f", "--json").stdout) == page
    assert "no run matches 'nothing'" in str(call("show", "nothing").exception)


@pytest.mark.parametrize(
    ("created", "said"),
    [
        ("2026-11-28T11:59:30+00:00", "30 s"),
        ("2026-11-28T11:55:00+00:00", "5 min"),
        ("2026-11-28T09:59:00+00:00", "2 h"),
        ("2026-11-20T12:00:00Z", "8 d"),
        ("2026-11-28T12:00:01+00:00", "0 s"),
        (None, ""),
    ],
)
def test_age_is_told_in_its_largest_unit(created: str | None, said: str) -> None:
    assert age(created, datetime(2026, 11, 28, 12, tzinfo=UTC)) == said


def test_what_sets_runs_apart_is_told_of_the_spec_and_its_defaults() -> None:
    texts = ("name: a\ndata: {train: t.json}\n", "name: b\ndata: {train: t.json}\ntrain: {learning_rate: 5.0e-4}\n")
    specs = [effective(text) for text in texts]
    assert told_apart(specs) == ["learning_rate=0.0001", "learning_rate=0.0005"]
    assert (specs[0]["evaluate.baseline"], specs[0]["train.cutoff_len"]) == (True, 1024)
    assert effective("name: x\nmodel: {gone: 1}\n") == {"name": "x", "model.gone": 1}


def test_compare_tells_of_keys_of_the_spec(tmp_path: Path) -> None:
    a, b = make_run(tmp_path), make_run(tmp_path, learning_rate=1e-4)
    for run, rest in ((a, ""), (b, "train: {learning_rate: 1.0e-3}\n")):
        write_text(run.folder / "spec.yaml", f"name: news\ndata: {{train: t.json, eval_fraction: 0.2}}\n{rest}")
    compared = side_by_side([a, b], given=settings([a, b]))
    assert compared["settings"] == [{"key": "train.learning_rate", "values": [0.0001, 0.001]}]


def test_list_ends_somewhere(call: Call) -> None:
    shown = call("list", "-n", "1")
    assert shown.stdout.splitlines()[1].startswith("4-other-d")
    assert shown.stderr == "… 2 more; --limit 0 shows all\n"


def test_show_and_best(call: Call, runs_dir: Path) -> None:
    assert json.loads(call("show", "1-news", "--json").stdout)["id"] == "1-news-a"
    assert "train              completed         2.5 s" in call("show", "1-news").stdout
    assert call("best").stdout.strip() == str(runs_dir / "1-news-a")
    assert json.loads(call("best", "--json", "--name", "other").stdout)["id"] == "4-other-d"


def test_a_file_of_two_runs_is_freed_with_the_second(tmp_path: Path) -> None:
    a, b = store.create(tmp_path, "a").folder, store.create(tmp_path, "b").folder
    (a / "model").write_bytes(b"x" * 1000)
    (b / "model").hardlink_to(a / "model")
    (b / "link").symlink_to("model")
    record = {folder: (folder / "run.json").stat().st_size for folder in (a, b)}
    assert prune.freed([a]) == record[a]
    assert prune.freed([a, b]) == record[a] + record[b] + 1000


def test_prune_keeps_the_best_of_each_name_and_what_is_in_use(call: Call, runs_dir: Path) -> None:
    with locked(runs_dir / "2-news-b"):
        done = call("prune", "--keep-best", "1", "--yes", "--json")
    assert json.loads(done.stdout)["removed"] == ["3-news-c"]
    assert "kept, in use: 2-news-b" in done.stderr
    assert sorted(run.id for run in store.every(runs_dir)) == ["1-news-a", "2-news-b", "4-other-d"]
    assert [folder.name for folder in runs_dir.iterdir() if folder.name.startswith(prune.TRASH)] == []


def test_nothing_is_removed_unasked(call: Call, runs_dir: Path) -> None:
    refused = call("rm", "1-news")
    assert isinstance(refused.exception, InputError)
    assert "nothing was removed" in str(refused.exception)
    assert (runs_dir / "1-news-a").is_dir()


def test_rm_says_what_it_frees(call: Call, runs_dir: Path) -> None:
    (runs_dir / "1-news-a" / "model").write_bytes(b"x" * 5_000_000)
    assert "removed 1 run, 5.0 MB freed" in call("rm", "1-news", "--yes").stdout
    assert not (runs_dir / "1-news-a").exists()


def test_the_trials_of_a_sweep_that_goes_on_stay(call: Call, runs_dir: Path) -> None:
    (runs_dir / "s").mkdir()
    with locked(runs_dir / "s"):
        assert "in use: 2-news-b" in str(call("rm", "2-news", "--yes").exception)
    assert call("rm", "2-news", "--yes").exit_code == 0


def test_rm_refuses_what_is_in_use(call: Call, runs_dir: Path) -> None:
    with locked(runs_dir / "1-news-a"):
        assert "in use: 1-news-a" in str(call("rm", "1-news", "2-news", "--yes").exception)
    assert (runs_dir / "2-news-b").is_dir()


def test_side_by_side(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, wrong=range(12)), make_run(tmp_path, learning_rate=1e-4)
    compared = side_by_side([a, b])
    assert compared["settings"] == [{"key": "train.learning_rate", "values": [0.0005, 0.0001]}]
    assert compared["sentences"] == [
        f"{b.id} is better than {a.id}: 96.7 against 73.3 (+23.3, 95 % +10.0…+40.0, n = 30)"
    ]
    assert compared["losses"][a.id][:2] == [(5, 2.0), (10, 1.0)]
    accuracy = next(line for line in compared["figures"] if line["metric"] == "accuracy")
    assert [round(value["value"], 1) for value in accuracy["values"]] == [73.3, 96.7]


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    a, b, c = make_run(tmp_path), make_run(tmp_path), store.create(tmp_path, "news")
    rows = (b.folder / "evaluation/tuned.jsonl").read_text().splitlines(keepends=True)
    (b.folder / "evaluation/tuned.jsonl").write_text("".join(rows[1:]))
    other, missing = side_by_side([a, b, c])["sentences"]
    assert "cannot be paired: only one of them has 1" in other
    assert missing == f"tuned was not measured in {c.id}"
    with pytest.raises(InputError, match="two runs or more"):
        side_by_side([a])


def test_only_differences_are_listed() -> None:
    assert differing([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == [
        {"key": "b", "values": [2, 3]},
        {"key": "c", "values": [None, 4]},
    ]


def test_compare_prints_and_writes_a_page(call: Call, runs_dir: Path, tmp_path: Path) -> None:
    a, b = make_run(runs_dir, "cmp"), make_run(runs_dir, "cmp", learning_rate=1e-4)
    shown = call("compare", a.id, b.id, "--page", str(tmp_path / "page.html")).stdout
    assert "train.learning_rate" in shown
    assert "no significant difference between" in " ".join(shown.split())
    assert (tmp_path / "page.html").is_file()
    assert json.loads(call("compare", a.id, b.id, "--json").stdout)["artifact"] == "tuned"


class FakeClient:
    """The calls of mlflow.tracking.MlflowClient that we make, kept in memory."""

    logged: list[Any] = []  # noqa: RUF012 - shared by all clients, as a server would be
    runs: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, tracking_uri: str) -> None:
        if tracking_uri == "bad":
            raise FakeMlflowError("no such store\nand a long story")

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, experiments: list[str], filter_string: str) -> list[str]:
        return [name for name in self.runs if f"'{name}'" in filter_string]

    def create_run(self, experiment: str, start_time: int, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run: str, metrics: list[Any], params: list[Any]) -> None:
        assert len(params) <= 100
        self.logged.extend([*metrics, *params])

    def log_artifact(self, run: str, path: str) -> None:
        self.logged.append(Path(path).name)

    def set_terminated(self, run: str, status: str, end_time: int) -> None:
        self.logged.append(status)

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[value] = key


class FakeMlflowError(Exception):
    """As mlflow.exceptions.MlflowException."""


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of mlflow as we use; the real one is no dependency."""
    parts = {
        "tracking": {"MlflowClient": FakeClient},
        "exceptions": {"MlflowException": FakeMlflowError},
        "entities": {
            "Metric": lambda key, value, _, step: (key, value, step),
            "Param": lambda key, value: (key, value),
        },
    }
    for name, members in parts.items():
        module = ModuleType(f"mlflow.{name}")
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, f"mlflow.{name}", module)


@pytest.mark.usefixtures("mlflow")
def test_mlflow_gets_each_run_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert export([run], "file:x") == [run.id]
    assert export([run], "file:x") == []
    assert ("tuned/accuracy", pytest.approx(96.67, abs=0.01), 0) in FakeClient.logged
    assert {("train/loss", 2.0, 5), ("train.learning_rate", "0.0005"), "spec.yaml", "FINISHED"} <= set(
        FakeClient.logged
    )


@pytest.mark.usefixtures("mlflow")
def test_a_run_with_metrics_of_the_users_own_is_exported(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_text(run.folder / "configs/own/metrics.py", "def same(row):\n    return 1.0\n")
    assert export([run], "file:x") == [run.id]


@pytest.mark.usefixtures("mlflow")
def test_what_was_exported_in_part_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise FakeMlflowError("disk full")

    run = make_run(tmp_path)
    with monkeypatch.context() as failing, pytest.raises(InputError, match="disk full"):
        failing.setattr(FakeClient, "log_artifact", full)
        export([run], "file:x")
    assert export([run], "file:x") == [run.id]


@pytest.mark.usefixtures("mlflow")
def test_what_mlflow_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mlflow refuses 'bad': no such store$"):
        export([make_run(tmp_path)], "bad")


def test_without_mlflow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(MissingError, match="mlflow cannot be used"):
        export([], "file:x")
