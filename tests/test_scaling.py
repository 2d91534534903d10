"""The figures of docs/scaling.md: the formulas, the page, and a small simulation."""

from __future__ import annotations

import pytest

from benchmarks.scaling import CLUSTERS, PAGE, SEVEN_B, collectives, estimate, generated, ideal, simulate


@pytest.mark.parametrize(
    ("zero", "devices", "micro", "sent", "operations"),
    [
        (0, 1, 8, 0.0, 0),
        (0, 2, 8, 100.0, 2),  # 2 · 1/2 · 100, however many micro-batches
        (2, 4, 8, 150.0, 2),
        (3, 2, 1, 150.0, 96),  # 1/2 · (2 · 100 + 100): half as much again as DDP
        (3, 2, 4, 600.0, 384),
    ],
)
def test_what_a_device_sends(zero: int, devices: int, micro: int, sent: float, operations: int) -> None:
    assert collectives(zero, (devices - 1) / devices, 100, 100, micro) == (sent, operations)


def test_the_model_has_the_parameters_that_it_says() -> None:
    linear = sum(outputs * inputs for _, outputs, inputs in SEVEN_B.matrices)
    norms = (2 * SEVEN_B.layers + 1) * SEVEN_B.hidden
    assert linear + 2 * SEVEN_B.vocabulary * SEVEN_B.hidden + norms == SEVEN_B.parameters


def test_more_devices_never_take_more_memory() -> None:
    for engine in ("DDP", "ZeRO-2", "ZeRO-3"):
        memory = [estimate(CLUSTERS[0], "full", engine, devices).memory for devices in (1, 8, 64, 512)]
        assert memory == sorted(memory, reverse=True)


@pytest.mark.parametrize(("durations", "workers", "expected"), [([3.0, 3.0, 3.0], 2, 6.0), ([1.0, 4.0, 2.0], 2, 4.0)])
def test_the_ideal_makespan(durations: list[float], workers: int, expected: float) -> None:
    assert ideal(durations, workers) == expected


def test_the_page_holds_what_the_script_writes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert generated(text) == text, "run `python -m benchmarks.scaling`"


def test_a_small_simulation_is_near_the_ideal() -> None:
    measured = simulate(trials=30, workers=10, minutes=(5, 15))
    assert 1.0 <= measured["ratio"] <= 1.05
