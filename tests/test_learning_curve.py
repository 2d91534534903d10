"""The power law, what is said of it, and the sweep behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json
from orchestrator.runs import store
from orchestrator.spec.load import load_project
from orchestrator.sweep import learning_curve as curve
from orchestrator.sweep.run import run_sweep
from tests.fake_stages import FakeLaunch
from tests.test_sweep_run import SweepReporter

SIZES = (30, 75, 150, 300)
DOUBLED = "Doubling the data from 300 to 600 rows would"


def law(n: float) -> float:
    return 15 + 300 * n**-0.5


def test_a_law_without_noise_is_found() -> None:
    found = curve.fit([(n, law(n)) for n in SIZES])
    assert (found.floor, found.scale, found.rate) == pytest.approx((15, 300, 0.5), rel=0.12)
    assert found.at(600) == pytest.approx(law(600), abs=0.5)


@pytest.mark.parametrize(
    ("metric", "values", "begins"),
    [
        ("accuracy", [(n, 100 - law(n) + shift) for n in SIZES for shift in (-1, 1)], f"{DOUBLED} likely bring "),
        (
            "eval_loss",
            [(n, law(n) / 20 + shift) for n in SIZES for shift in (-0.01, 0.01)],
            f"{DOUBLED} likely lower eval_loss by ",
        ),
        ("accuracy", [(n, 80 + shift) for n in SIZES for shift in (-0.2, 0.2)], f"{DOUBLED} hardly change accuracy"),
        ("accuracy", [(n, 80.0) for n in SIZES], "4 trainings on 4 sizes are too few"),
        ("accuracy", [(n, 80.0) for n in (30, 75) for _ in range(3)], "6 trainings on 2 sizes are too few"),
    ],
)
def test_the_sentence(metric: str, values: list[tuple[int, float]], begins: str) -> None:
    assert curve.describe(values, metric)["sentence"].startswith(begins)


def test_the_interval_holds_the_true_gain() -> None:
    points = [(n, 100 - law(n) + shift) for n in SIZES for shift in (-2, 0.5, 1.5)]
    gain = curve.describe(points, "accuracy")["doubled"]["gain"]
    assert gain["low"] <= law(300) - law(600) <= gain["high"]
    assert 0 < gain["high"] - gain["low"] < 15


@pytest.mark.parametrize("text", ["0.5,1", "a,b,c", "0,0.5,1", "0.5,0.7,1.5", ""])
def test_shares_that_make_no_curve(text: str) -> None:
    with pytest.raises(InputError, match="three or more shares"):
        curve.shares(text)


def test_a_curve_over_real_sweeps(project: Path) -> None:
    loaded = load_project(project / "spec.yaml")
    factory = curve.factory(loaded, curve.shares("0.5,0.75,1"), 2, None, lambda done, total: None)
    assert factory.sweep.parameters == {"data.max_samples": [12, 18, 24]}
    seen = SweepReporter()
    page = run_sweep(replace(factory, launch=FakeLaunch()), seen, seen)
    page = curve.finish(page, loaded)
    folder = project / "runs" / page["id"]
    assert read_json(folder / "sweep.json")["curve"]["sentence"] == page["curve"]["sentence"]
    assert ElementTree.parse(folder / "learning-curve.svg").getroot().tag.endswith("svg")
    assert curve.text(page).splitlines()[1].startswith("   12 ████")
    changes = page["trials"][1]["changes"]
    assert {key: changes[key] for key in ("train.seed", "data.seed", "data.max_samples")} == {
        "train.seed": 43,
        "data.seed": 43,
        "data.max_samples": 12,
    }
    assert {run.record["name"] for run in store.every(project / "runs")} == {"tiny-curve"}
