"""Pages without a browser: what they say, what they escape, how they stay small."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import HOST, write_json, write_text
from orchestrator.lib.step import Step
from orchestrator.report import find, live, write, write_comparison
from orchestrator.report.answers import answers_by_row
from orchestrator.report.overview import head, timeline
from orchestrator.runs import store
from orchestrator.runs.compare import side_by_side
from orchestrator.runs.results import summaries
from tests.conftest import write_tree
from tests.example_runs import HOSTILE, make_run, make_sweep, write_log

STYLE = Path(__file__).parent.parent / "templates" / "report.css"


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "runs"
    make_run(folder, answer=HOSTILE)
    return folder


@pytest.fixture(scope="module")
def text(runs_dir: Path) -> str:
    return write(next(store.every(runs_dir)).folder).read_text(encoding="utf-8")


def test_says_how_it_went(text: str) -> None:
    assert "The tuned model answers 93.3 % (" in text
    assert "better than the base model&#39;s 0.0; 0 of 1 GGUFs pass the quality gate" in text
    assert "gguf-f16 answers 96.7 % of the rows as tuned does; the gate asks for 99.0 %" in text


@pytest.mark.parametrize(
    "part",
    ["Artifacts", "What to try next", "Loss", "Learning rate", "Worst mistakes", "Confusion", "Lineage", "spec.yaml"],
)
def test_has_every_part(text: str, part: str, runs_dir: Path) -> None:
    run = next(store.every(runs_dir))
    if part == "Lineage":
        run.set(lineage={"spec": "ab12"})
        text = write(run.folder).read_text(encoding="utf-8")
    assert part in text


def test_shows_exact_commands_and_configurations(text: str) -> None:
    assert "python -m train &#39;a b&#39;" in text
    assert "learning_rate: 0.0005" in text


def test_no_folder_of_this_machine_is_on_a_page_that_may_be_sent(tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    run = next(store.every(tmp_path / "runs"))
    python = "/opt/venv/bin/python"
    run.record["stages"]["train"] |= {"status": "failed", "argv": [python, "-m", "x", "/srv/a b/c.json"]}
    run.set(environment={"python": python, "url": "https://host/v1/models"}, lineage={"base": "/mnt/m/zh"})
    write_tree(run.folder, {
        "spec.yaml": "model: {base: /mnt/模型/tiny}\ndata: {train: data/train.json}\n",
        "configs/train.yaml": "model_name_or_path: /mnt/模型/tiny\ndataset_dir: data\n",
        "logs/train.log": 'File "/home/李雷/my project/x.py"\nError: /tmp/x/y.bin is broken, and/or 1/2\n',
    })  # fmt: skip
    text = write(run.folder).read_text(encoding="utf-8")
    for folder in ("/opt/", "/mnt/", "/home/", "/srv/", "/tmp/", "李雷"):
        assert folder not in text, folder
    for kept in ("…/python -m x", "base: …/tiny", "data/train.json", "https://host/v1/models", "and/or 1/2"):
        assert kept in text, kept


def test_nothing_from_model_or_data_is_markup(text: str) -> None:
    assert "&lt;script&gt;document.title=" in text
    assert "<script>document" not in text
    assert "<img" not in text
    assert "{{ 7 * 7 }} 体育" in text


def attributes(page: str) -> set[str]:
    """Every attribute that some element of a page has."""
    found: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update(name for name, _ in attrs)

    Parser().feed(page)
    return found


def test_policy_allows_only_the_style_and_the_script_of_the_page(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    for tag in ("style", "script"):
        [body] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy[1]
    assert [name for name in attributes(text) if name == "style" or name.startswith("on")] == []


def test_reads_itself_again_while_it_runs_and_says_how_it_failed(tmp_path: Path) -> None:
    run = store.create(tmp_path / "runs", "news")
    assert 'http-equiv="refresh"' in write(run.folder).read_text(encoding="utf-8")
    write_text(run.folder / "logs/train.log", f"loading\nValueError: {HOSTILE}\n")
    run.set(status="failed", stages={"train": {"status": "failed", "argv": [], "seconds": 1.0}})
    page = write(run.folder).read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in page
    assert "Failed in train; the log is logs/train.log." in page
    assert "ValueError: &lt;script&gt;" in page


def test_findings_of_the_data_are_shown(tmp_path: Path) -> None:
    run = store.create(tmp_path / "runs", "news")
    found = {
        "kind": "leakage_exact",
        "severity": "error",
        "message": "1 row of eval is in train",
        "examples": [HOSTILE],
    }
    write_json(run.folder / "data/findings.json", {"findings": [{**found, "rows": [{"file": "eval.json", "row": 3}]}]})
    run.set(status="completed")
    page = write(run.folder).read_text(encoding="utf-8")
    assert "eval.json row 3" in page
    assert "Fix the data first; figures on such data mislead: 1 row of eval is in train" in page
    assert "<img" not in page


def test_a_sweep_of_500_trials_stays_small(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "runs", 500, HOSTILE)
    page = write(folder)
    assert page.stat().st_size < 3_000_000
    text = page.read_text(encoding="utf-8")
    assert "500 of 500 trials ended, 50 pruned. The best of 450 settings" in text
    assert "2 others show no significant difference from it" in text
    assert text.count("<polyline") == 450 + 500
    assert "<img" not in text


def test_a_sweep_that_has_just_begun(tmp_path: Path) -> None:
    sweep = {"id": "s", "name": "news", "trials": [], "ranking": []}
    write_json(tmp_path / "runs/s/sweep.json", sweep)
    text = write(tmp_path / "runs/s").read_text(encoding="utf-8")
    assert "0 of 0 trials ended; none was ranked yet." in text
    assert 'http-equiv="refresh"' in text
    run = store.create(tmp_path / "runs", "news")
    write_log(run.folder, 3)
    trial = {"number": 1, "run": run.id, "parameters": {"learning_rate": 5e-4}}
    write_json(tmp_path / "runs/s/sweep.json", {**sweep, "total": 2, "running": [trial]})
    text = write(tmp_path / "runs/s").read_text(encoding="utf-8")
    assert "0 of 2 trials ended" in text
    assert 'data-name="trial 1, running, learning_rate = 5e-4"' in text


def test_some_runs_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs"), make_run(tmp_path / "runs", wrong=range(12), learning_rate=1e-4)]
    write_comparison(side_by_side(runs), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"{runs[1].id} is worse than {runs[0].id}: 73.3 against 96.7" in text
    assert "train.learning_rate" in text
    assert text.count("<polyline") == 2


def test_finds_runs_and_sweeps_by_a_part_of_their_name(tmp_path: Path) -> None:
    run, sweep = store.create(tmp_path, "news"), make_sweep(tmp_path, 2)
    assert find(tmp_path, "abcdef") == sweep
    assert find(tmp_path, run.id[-6:]) == find(tmp_path, None) == run.folder
    assert find(tmp_path, str(sweep)) == sweep
    with pytest.raises(InputError, match="no run matches 'nothing'"):
        find(tmp_path, "nothing")


class Watching:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def starts(self, step: Step, folder: Path) -> None:
        self.seen.append("starts")

    def tick(self) -> None:
        self.seen.append("tick")

    def ends(self, step: Step, status: str, seconds: float) -> None:
        self.seen.append("ends")


def test_the_page_follows_a_run(tmp_path: Path) -> None:
    run, watching, step = store.create(tmp_path / "runs", "news"), Watching(), Step("train", "train", ())
    reporter = live.LiveRun(watching)
    reporter.tick()
    reporter.write()  # nothing is known of a run yet
    reporter.starts(step, run.folder)
    reporter.tick()
    reporter.ends(step, "completed", 1.0)
    assert watching.seen == ["tick", "starts", "tick", "ends"]
    assert "between two stages" in (run.folder / "report.html").read_text(encoding="utf-8")
    run.set(status="completed")
    reporter.write()
    assert "nothing was measured" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_page_that_tells_less_than_its_run_is_written_anew(tmp_path: Path) -> None:
    run = store.create(tmp_path / "runs", "news")
    write(run.folder)
    leftover = run.folder / f".report.html.99999999-{HOST}-0123abcd.tmp"
    leftover.touch()
    run.set(status="completed")
    live.LiveRun(Watching()).write(run.folder)
    page = run.folder / "report.html"
    assert "nothing was measured" in page.read_text(encoding="utf-8")
    assert not leftover.exists()

    first = page.stat().st_ino
    live.LiveRun(Watching()).write(run.folder)
    assert page.stat().st_ino == first


def test_the_pages_of_a_sweep_and_its_trials_follow(tmp_path: Path) -> None:
    folder, run = make_sweep(tmp_path, 3), store.create(tmp_path, "news")
    told: list[object] = []
    sweep_reporter = SimpleNamespace(
        watch=lambda *told_of: told.append(told_of), ended=lambda *told_of: told.append(told_of)
    )
    reporter = live.LiveSweep(sweep_reporter, live.LivePage(folder))
    reporter.watch([], 1, 3)
    reporter.ended({"run": None}, 3)
    reporter.ended({"run": run.id}, 3)
    assert told == [([], 1, 3), ({"run": None}, 3), ({"run": run.id}, 3)]
    assert (folder / "report.html").is_file()
    assert (run.folder / "report.html").is_file()


def test_a_page_is_not_written_at_every_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(live, "write", written.append)
    page = live.LivePage(tmp_path)
    for _ in range(3):
        page.refresh()
    assert written == [tmp_path]


def test_a_broken_template_stops_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = store.create(tmp_path / "runs", "news")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/report.html.j2").write_text("{{ nobody_knows }}")
    page = live.LivePage(run.folder)
    page.write()
    page.write()
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"the report of {run.id} is not kept up to date"
    ]


def colours(scheme: str) -> dict[str, tuple[float, ...]]:
    """The variables of one colour scheme; the dark ones override the light."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)[:2]
    found = dict(re.findall(r"--([\w-]+): ([^;]+);", light))
    found |= dict(re.findall(r"--([\w-]+): ([^;]+);", dark)) if scheme == "dark" else {}
    return {name: rgb(value) for name, value in found.items()}


def rgb(value: str) -> tuple[float, ...]:
    if "," in value:
        return tuple(map(float, value.split(",")))
    digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
    return tuple(int(digits[place : place + 2], 16) for place in (0, 2, 4))


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_aa(scheme: str) -> None:
    of = colours(scheme)
    texts = {f"{ink} on {ground}": contrast(of[ink], of[ground])
             for ink in ("ink", "soft", "good", "bad", "accent") for ground in ("card", "page")}  # fmt: skip
    heaviest = tuple(0.48 * heat + 0.52 * card for heat, card in zip(of["heat"], of["card"], strict=True))
    texts |= {"ink on wash": contrast(of["ink"], of["wash"]), "ink on heat": contrast(of["ink"], heaviest)}
    assert {name: ratio for name, ratio in texts.items() if ratio < 4.5} == {}
    lines = {f"s{number}": contrast(of[f"s{number}"], of["card"]) for number in range(8)}
    assert {name: ratio for name, ratio in lines.items() if ratio < 3} == {}


def test_a_page_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path / "某人的项目" / "runs", answer="/roots/of/all/evil and/or /think https://example.org/a/b")
    home = "/home/somebody/模型/tiny"
    write_text(run.folder / "spec.yaml", f"model: {{base: {home}}}\nurl: https://example.org/models/tiny\n")
    write_text(run.folder / "configs/train.yaml", f"model_name_or_path: {home}\nlearning_rate: 0.1\n")
    train = {**run.stage("train"), "argv": [f"{home}/.venv/bin/python", "-m", "train", f"dir={home}"]}
    run.set(stages={**run.record["stages"], "train": train}, environment={"python": f"{home}/bin/python3"})
    run.set(lineage={"base_model": {"name": home}})
    page = write(run.folder).read_text(encoding="utf-8")
    assert "somebody" not in page and str(tmp_path) not in page
    assert "model_name_or_path: …/tiny" in page and "dir=…/tiny" in page and "…/python3" in page
    assert "https://example.org/models/tiny" in page
    assert "/roots/of/all/evil and/or /think https://example.org/a/b" in page, "what a model says stays as it is"
    other = make_run(tmp_path / "某人的项目" / "runs")
    write_text(other.folder / "configs/train.yaml", "model_name_or_path: /home/somebody/other\n")
    write_comparison(side_by_side([run, other]), tmp_path / "compare.html")
    assert "somebody" not in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_begins_with_what_the_run_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    run.record["stages"]["train"]["peak_memory"] = {"main": 1_500_000_000, "gpu": 9_000_000_000}
    write_text(run.folder / "data/train.json", '[\n{"a": 1},\n{"a": 2}\n]\n')
    gpus = [{"name": "NVIDIA H100"}, {"name": "NVIDIA H100"}]
    run.set(lineage={"base_model": {"name": "/home/somebody/tiny"}}, environment={"gpu": gpus})
    assert head(run.folder, run.record) == [
        ("Base model", "…/tiny"),
        ("Learning rate", "0.0005"),
        ("Epochs", "3"),
        ("Rows", "2 to learn"),
        ("Device", "2 × NVIDIA H100"),
        ("Peak memory", "1.5 GB, 9.0 GB on the GPU"),
        ("Time", "6 s"),
    ]


def test_stages_lie_on_one_line_of_time() -> None:
    entries = {
        "train": {"status": "completed", "started_at": "2026-01-01T00:00:10Z", "seconds": 30.0},
        "prepare": {"status": "completed", "started_at": "2026-01-01T00:00:00Z", "seconds": 10.0},
        "merge": {"status": "completed", "started_at": "2026-01-01T00:00:00Z", "reused_from": "another"},
    }
    bars = timeline({"stages": entries})
    assert [(bar["name"], bar["x"], bar["width"]) for bar in bars] == [("prepare", 0, 25), ("train", 25, 75)]
    assert timeline({"stages": {}}) == []


def test_a_link_in_a_run_shows_nothing_of_the_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    (tmp_path / "secret").write_text("KEPT-TO-MYSELF")
    for path in ("export/Modelfile", "spec.yaml", "evaluation/tuned.jsonl", "configs/train.yaml", "logs/train.log"):
        (run.folder / path).parent.mkdir(exist_ok=True)
        (run.folder / path).unlink(missing_ok=True)
        (run.folder / path).symlink_to(tmp_path / "secret")
    run.record["stages"]["train"]["status"] = "failed"
    assert "KEPT-TO-MYSELF" not in write(run.folder).read_text(encoding="utf-8")


def test_rows_are_found_by_who_answers_otherwise(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", wrong=(0, 7), answer="体育")
    rows = answers_by_row(run.folder, summaries(run.folder))
    assert len(rows) == 30 and rows[7]["answers"] == {"base": "?", "tuned": "体育", "gguf-f16": "体育"}
    assert rows[7]["kinds"] == ["base is wrong", "tuned is wrong", "gguf-f16 is wrong", "base and tuned differ"]
    assert rows[3]["kinds"] == [
        "base is wrong",
        "gguf-f16 is wrong",
        "base and tuned differ",
        "gguf-f16 and tuned differ",
    ]
