"""Scales, ticks and shapes of charts; sentences and advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib.render import Renderer
from orchestrator.report.charts import Axis, Scale, Series, parallel, plot, scale, short
from orchestrator.report.summary import advice, outcome, told
from orchestrator.report.sweep_page import thinned


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0, 100, False, [0, 20, 40, 60, 80, 100]),
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 17, False, [5, 10, 15]),
        (-0.2, 0.2, False, [-0.2, -0.1, 0, 0.1, 0.2]),
        (1e-5, 1e-2, True, [1e-5, 1e-4, 1e-3, 1e-2]),
        (2e-4, 5e-3, True, [2e-4, 5e-4, 1e-3, 2e-3, 5e-3]),
        (30, 600, True, [50, 100, 200, 500]),
        (2, 8, True, [2, 4, 6, 8]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 100, log).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("values", "log", "expected"),
    [
        ([1, 2, 3], None, (1, 3, False)),
        ([1e-4, 1e-3], None, (1e-4, 1e-3, True)),
        ([1e-4, 1e-3], False, (1e-4, 1e-3, False)),
        ([0, 100], True, (0, 100, False)),
        ([5], None, (2.5, 7.5, False)),
        ([0], None, (-0.5, 0.5, False)),
        ([2], True, (1, 4, True)),
        ([], None, (0, 1, False)),
        ([float("nan"), 1, 2], None, (1, 2, False)),
    ],
)
def test_scales_hold_their_values(values: list[float], log: bool | None, expected: tuple[float, float, bool]) -> None:
    made = scale(values, 0, 100, log)
    assert (made.low, made.high, made.log) == expected


def test_a_log_scale_puts_the_middle_in_the_middle() -> None:
    assert [Scale(1e-4, 1e-2, 0, 100, True)(value) for value in (1e-4, 1e-3, 1e-2)] == [0, 50, 100]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (1234, "1234"), (5e-4, "5e-4"), (1.25e-5, "1.25e-5"), (1e6, "1e6"), (-2e-3, "-2e-3")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_a_chart_draws_lines_dots_and_a_legend(tmp_path: Path) -> None:
    chart = plot(
        "Loss", "step", "loss", [Series("a", [(0, 0), (1, 1)]), Series("<b>", [(0, 1)], "s1"), Series("c", [])]
    )
    assert chart
    assert chart.series == [Series("a", [(54, 212), (508, 20)]), Series("<b>", [(54, 20)], "s1", dots=True)]
    assert chart.legend == {"a": "s0", "<b>": "s1"}
    template = "{% import 'report_charts.html.j2' as charts %}{{ charts.draw(chart) }}"
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/drawn.html.j2").write_text(template)
    svg = Renderer(tmp_path)("drawn.html.j2", chart=chart)
    assert svg.count("<polyline") == 1
    assert svg.count("<circle") == 1
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert svg.count('class="key') == 2


def test_nothing_to_draw() -> None:
    assert plot("Loss", "step", "loss", [Series("a", [])]) is None
    assert parallel([Axis("a", [1])], ["one"], ["s0"]) is None
    assert parallel([Axis("a", []), Axis("b", [])], [], []) is None


def test_parallel_axes_take_words_and_numbers() -> None:
    chart = parallel([Axis("rate", [1e-4, 1e-2]), Axis("kind", ["x", True])], ["one", "two"], ["s0", "s1"])
    assert chart
    assert [each.path for each in chart.series] == ["54,222 466,222", "54,40 466,40"]


def test_thinned_keeps_the_last_point() -> None:
    points = [(float(step), 0.0) for step in range(1000)]
    assert len(thinned(points)) <= 60
    assert thinned(points)[-1] == points[-1]
    assert thinned(points[:3]) == points[:3]
    assert thinned([]) == []


def figure(value: float, low: float = 0, high: float = 0) -> dict[str, float]:
    return {"value": value, "low": low or value - 5, "high": high or value + 5}


def against(verdict: str, base: float) -> dict[str, Any]:
    return {"a": "tuned", "b": "base", "verdict": verdict, "value_b": base}


CLASSIFIED = {"metrics": {"tuned": {"n": 100, "accuracy": figure(80)}}}
WRITTEN = {"metrics": {"tuned": {"n": 50, "rougeL": figure(45.25)}}}
SHIPPED = {
    "metrics": {"tuned": {"n": 100, "accuracy": figure(80)}, "gguf-q8_0": {}, "gguf-q4_0": {}},
    "failures": [{"artifact": "gguf-q4_0", "what": "agreement"}],
    "recommendation": {"artifact": "gguf-q8_0", "bytes": 145_000_000},
}


@pytest.mark.parametrize(
    ("status", "stages", "summary", "said"),
    [
        ("running", {"train": "running"}, {}, ("Running: train.", "plain")),
        ("running", {"train": "completed"}, {}, ("Running: between two stages.", "plain")),
        ("failed", {"train": "failed"}, {}, ("Failed in train; the log is logs/train.log.", "bad")),
        ("interrupted", {}, {}, ("Interrupted.", "bad")),
        ("pruned", {}, {}, ("Given up early: other trials of its sweep did better.", "plain")),
        ("completed", {}, {}, ("Finished; nothing was measured.", "plain")),
        (
            "completed",
            {},
            {**CLASSIFIED, "comparisons": [against("better", 1)]},
            (
                "The tuned model answers 80.0 % (75.0–85.0) of 100 held-out rows right, "
                "better than the base model's 1.0.",
                "good",
            ),
        ),
        (
            "completed",
            {},
            {**WRITTEN, "comparisons": [against("cannot tell", 44)]},
            (
                "The tuned model reaches ROUGE-L 45.2 (40.2–50.2) on 50 held-out rows, "
                "no significant difference from the base model's 44.0.",
                "plain",
            ),
        ),
        (
            "completed",
            {},
            SHIPPED,
            (
                "The tuned model answers 80.0 % (75.0–85.0) of 100 held-out rows right; "
                "1 of 2 GGUFs pass the quality gate, ship gguf-q8_0 (145.0 MB).",
                "bad",
            ),
        ),
    ],
)
def test_outcome(status: str, stages: dict[str, str], summary: dict[str, Any], said: tuple[str, str]) -> None:
    record = {"status": status, "stages": {name: {"status": word} for name, word in stages.items()}}
    assert outcome(record, summary) == said


def test_outcome_of_a_training_says_how_far_it_is() -> None:
    record = {"status": "running", "stages": {"train": {"status": "running"}}}
    last = {"current_steps": 5, "total_steps": 20, "elapsed_time": "0:01:07"}
    assert outcome(record, {}, [last])[0] == "Running: train, step 5 of 20, 0:03:21 left."
    resumed = {"status": "running", "argv": ["train", "resume_from_checkpoint=train/checkpoint-4"]}
    said = outcome({"status": "running", "stages": {"train": resumed}}, {}, [last])[0]
    assert said == "Running: train, step 5 of 20, 0:16:45 left."


def losses(*values: float, key: str = "loss") -> list[dict[str, float]]:
    return [{"current_steps": step, key: value} for step, value in enumerate(values)]


@pytest.mark.parametrize(
    ("summary", "log", "findings", "words"),
    [
        (CLASSIFIED, [], [], []),
        (CLASSIFIED, losses(8, 7, 6, 5, 4, 3, 2, 1), [], ["still falling"]),
        (CLASSIFIED, losses(8, 1, 1, 1, 1, 1, 1, 1), [], []),
        (CLASSIFIED, losses(2, 1, 1.2, key="eval_loss"), [], ["rose again"]),
        (CLASSIFIED, [], [{"severity": "error", "message": "leak"}, {"severity": "info", "message": "x"}], ["leak"]),
        ({**CLASSIFIED, "comparisons": [against("cannot tell", 79)]}, [], [], ["No gain over the best baseline"]),
        ({"metrics": {"tuned": {"n": 40, "accuracy": figure(60, 45, 75)}}}, [], [], ["±15 points"]),
        ({"metrics": {"tuned": {"n": 40, "invalid_label_rate": figure(17)}}}, [], [], ["17 % of the answers"]),
        (
            {
                "detail": {
                    "tuned": {"per_class": {"体育": {"recall": 20.0, "support": 5}, "x": {"recall": 0, "support": 0}}}
                }
            },
            [],
            [],
            ["体育 (20 %)"],
        ),
        (SHIPPED, [], [], ["failed for gguf-q4_0", "Ship gguf-q8_0"]),
    ],
)
def test_advice(summary: dict[str, Any], log: list[Any], findings: list[Any], words: list[str]) -> None:
    given = advice({"status": "completed", "stages": {}}, summary, log, findings)
    assert len(given) == len(words)
    assert all(word in sentence for word, sentence in zip(words, given, strict=True))


def test_advice_of_an_unfinished_run() -> None:
    stages = {"train": {"status": "failed"}}
    assert advice({"status": "running", "stages": {}}, {}, [], []) == []
    assert advice({"status": "failed", "stages": stages}, {}, [], [])[0] == "Read logs/train.log."


def test_a_verdict_leads_to_what_it_is_about() -> None:
    assert [told(word) for word in ("better", "as good", "cannot tell")] == [
        "better than",
        "as good as",
        "no significant difference from",
    ]
