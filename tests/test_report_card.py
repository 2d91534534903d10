"""The proof card: what it states, for whom it is refused, and that SVG and PNG hold the same."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from orchestrator.lib.errors import GateError, InputError
from orchestrator.lib.files import read_json, write_json, write_text
from orchestrator.report import card
from orchestrator.report.card import Words, baseline, cut, shapes
from orchestrator.runs import proof, store
from orchestrator.runs.results import summaries
from orchestrator.runs.store import Run
from tests.conftest import run_tool
from tests.example_runs import make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose record is true, with an f16 file that the gate lets pass."""
    run = make_run(tmp_path / "某人" / "runs", wrong=(0, 7), answer="体育")
    file = run.folder / "evaluation/summary-judge.json"
    shipped = {"artifact": "gguf-f16", "bytes": 270_000_000, "sentence": ""}
    write_json(file, {**read_json(file), "failures": [], "recommendation": shipped})
    write_json(run.folder / "evaluation/gguf-f16.parity.json", {"compared": 30, "equal_prompts": 30})
    model = {"path": "export/news-f16.gguf", "bytes": 0, "sha256": "c0ffee" * 10 + "0123"}
    lineage = {"base_model": {"name": "/home/somebody/模型 <b>"}}
    run.set(lineage=lineage, stages={"convert": {"status": "completed", "outputs": [model]}})
    return run


def said(run: Run) -> list[str]:
    return [shape.text for shape in shapes(run, summaries(run.folder)) if isinstance(shape, Words)]


def test_states_what_was_measured_and_what_ships(run: Run) -> None:
    text = "\n".join(said(run))
    assert "classification, 3 labels · fine-tuned from …/模型 <b>" in text
    assert "accuracy on 30 held-out rows" in text
    assert "most frequent label\n33.3 (16.7–50.0)" in text, "the base model answers nothing right"
    assert "gguf-f16, shipped\n90.0 (" in text
    assert "news-f16.gguf · 270.0 MB · sha256 c0ffeec0ffee…" in text
    assert "equal in 30 of 30 prompts; 97 % of answers as the tuned model" in text
    assert "the tuned model is better than the base model" in text
    assert f"orchestrator verify {run.id}" in text


def test_says_that_nothing_ships(tmp_path: Path) -> None:
    text = "\n".join(said(make_run(tmp_path / "runs", answer="?")))
    assert "nothing: no file passes the quality gate" in text and "shipped" not in text


def test_is_drawn_as_svg_and_as_png(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "damaged", lambda _: [])
    svg = card.write(run, tmp_path / "card.svg").read_text(encoding="utf-8")
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == said(run), "escaped, and in the same order"
    png = card.write(run, tmp_path / "card.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20], "big") == 1760


def test_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'card\.gif'"):
        card.write(run, tmp_path / "card.gif")
    with pytest.raises(InputError, match="nothing was measured"):
        card.write(store.create(tmp_path / "runs", "new"), tmp_path / "card.svg")
    with pytest.raises(GateError, match=r"not as recorded: export/news-f16\.gguf: is gone"):
        card.write(run, tmp_path / "card.svg")
    assert not (tmp_path / "card.svg").exists()


def test_from_the_command_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    for name in ("prepare", "train", "score", "judge"):
        write_text(run.folder / f"{name}.bin", "abc")
    run.set(stages={}, files=[])
    done = run_tool(("report", run.id[-6:], "--card", "card.svg", "--json"), tmp_path)
    assert (done.code, done.stdout.split()) == (0, ["{", '"card":', '"card.svg"', "}"]), done.stderr
    assert run_tool(("report", "--card", "card.jpg"), tmp_path).code == 2


def test_the_best_baseline_is_the_one_to_beat() -> None:
    tuned = {"accuracy": {"value": 80}, "majority_baseline": {"value": 30}}
    assert baseline({"tuned": tuned, "base": {"accuracy": {"value": 40}}}, "accuracy") == ("base model", {"value": 40})
    assert baseline({"tuned": {"rougeL": {"value": 3}}}, "rougeL") is None
    worse = {"tuned": {"perplexity": {"value": 3}}, "base": {"perplexity": {"value": 9}}}
    assert baseline(worse, "perplexity") == ("base model", {"value": 9})


def test_chinese_is_cut_by_its_width() -> None:
    assert cut("abc", 3) == "abc" and cut("abcd", 3) == "ab…"
    assert cut("新闻分类", 6) == "新闻…"
