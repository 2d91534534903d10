"""Paired comparison: the verdicts, the p-values and the rows it would take."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from orchestrator.evaluation.compare import Basis, agreement, compare, disagreements, mcnemar_rows
from orchestrator.evaluation.rows import Row
from orchestrator.lib.errors import InputError


def answers(predictions: list[str], label: str = "体育") -> list[Row]:
    return [Row(str(i), f"新闻 {i}", label, prediction) for i, prediction in enumerate(predictions)]


def right(pattern: str) -> list[Row]:
    """Rows that are right where the pattern says 1; both labels are known."""
    rows = answers(["体育" if mark == "1" else "国际" for mark in pattern])
    return [*rows, Row("last", "", "国际", "国际")]


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (6, 0), (20, 8), (8, 20), (30, 1)])
def test_accuracy_is_compared_by_mcnemar(wins: int, losses: int) -> None:
    a = right("1" * wins + "0" * losses + "1" * 40 + "0" * 20)
    b = right("0" * wins + "1" * losses + "1" * 40 + "0" * 20)
    found = compare(a, b, Basis("classification"))
    p_value = binomtest(wins, wins + losses).pvalue if wins + losses else 1
    assert found.p_value == pytest.approx(p_value)
    assert found.difference.value == pytest.approx(100 * (wins - losses) / len(a))
    expected = "cannot tell" if p_value >= 0.05 else "better" if wins > losses else "worse"
    assert found.verdict == expected
    assert (found.verdict != "cannot tell") or found.rows_needed is None or found.rows_needed > len(a)


def test_order_of_rows_does_not_matter() -> None:
    a, b = right("1101011"), right("0110100")
    assert compare(a, b, Basis("classification")).p_value == compare(a, b[::-1], Basis("classification")).p_value


def test_sentences_name_both_and_give_the_figures() -> None:
    clear = compare(right("1" * 79 + "0" * 20), right("1" * 12 + "0" * 87), Basis("classification", ("tuned", "base")))
    assert clear.sentence.startswith("tuned is better than base: 80.0 against 13.0 (+67.0, 95 % +")
    assert clear.sentence.endswith("n = 100)")
    close = compare(right("1" * 49 + "0" * 50), right("1" * 47 + "0" * 52), Basis("classification", ("q4", "tuned")))
    assert close.sentence.startswith("no significant difference between q4 and tuned: 50.0 against 48.0 (+2.0, 95 % ")
    assert close.sentence.endswith("about 400 rows would be needed")
    same = compare(right("10"), right("10"), Basis("classification", ("q8", "tuned")))
    assert same.sentence.endswith("no difference seen")
    assert same.rows_needed is None


def test_rows_needed_reach_the_promised_power() -> None:
    """With the rows of Connor's formula, McNemar's test finds the difference in about 80 of 100 experiments."""
    discordant, difference = 0.2, 0.08
    n = mcnemar_rows(discordant, difference)
    assert n is not None
    generator = np.random.default_rng(0)
    wins, losses, _ = generator.multinomial(
        n, [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant], size=400
    ).T
    found = np.mean([binomtest(int(w), int(w + lo)).pvalue < 0.05 for w, lo in zip(wins, losses, strict=True)])
    assert 0.7 < found < 0.88


def test_texts_are_compared_by_bootstrap() -> None:
    label = "the bank cut its rate today"
    good = answers([label] * 15 + ["the bank cut its rate"] * 15, label)
    bad = answers(["the bank"] * 20 + ["rain"] * 10, label)
    found = compare(good, bad, Basis("generation"))
    assert (found.metric, found.verdict) == ("rougeL", "better")
    assert compare(bad, good, Basis("generation")).verdict == "worse"
    assert found.difference.low > 0
    noisy = compare(
        answers(["the bank", label] * 15, label), answers([label, "the bank"] * 15, label), Basis("generation")
    )
    assert noisy.verdict == "cannot tell"


@pytest.mark.parametrize(("n", "verdict"), [(1, "cannot tell"), (5, "cannot tell"), (6, "better")])
def test_a_handful_of_rows_proves_nothing(n: int, verdict: str) -> None:
    found = compare(
        answers(["the bank cut"] * n, "the bank cut"), answers(["the"] * n, "the bank cut"), Basis("generation")
    )
    assert found.verdict == verdict
    assert verdict != "cannot tell" or (found.rows_needed or 0) > n


def test_the_false_alarm_rate_is_small() -> None:
    """Two equally good artifacts: at most about 5 of 100 comparisons may say otherwise."""
    generator = np.random.default_rng(0)
    alarms = 0
    for seed in range(100):
        a, b = ("".join(map(str, generator.integers(0, 2, 60))) for _ in range(2))
        alarms += compare(right(a), right(b), Basis("classification", seed=seed)).verdict != "cannot tell"
    assert alarms <= 10


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(InputError, match="only one of them has 2"):
        compare(answers(["a", "b", "c"]), answers(["a", "b"]), Basis("classification"))
    with pytest.raises(InputError, match="more than once"):
        agreement(answers(["a"]) * 2, answers(["a"]))
    with pytest.raises(InputError, match="has the label '体育' in a and '国际' in b"):
        disagreements(answers(["a"]), answers(["a"], "国际"))
    with pytest.raises(InputError, match="no rows at all"):
        compare([], [], Basis("generation"))


def test_agreement_is_about_answers_not_truth() -> None:
    a, b = answers(["x", "<think>…</think>体育", "国际", "a"]), answers(["x\n", "体育", "体育", "b"])
    assert agreement(a, b).value == 50
    assert disagreements(a, b, ("gguf-q4_k_m", "tuned")) == [
        {"id": "2", "prompt": "新闻 2", "label": "体育", "gguf-q4_k_m": "国际", "tuned": "体育"},
        {"id": "3", "prompt": "新闻 3", "label": "体育", "gguf-q4_k_m": "a", "tuned": "b"},
    ]


def test_full_agreement_has_an_honest_interval() -> None:
    rows = answers(["体育"] * 100)
    assert agreement(rows, rows).low == pytest.approx(96.378, abs=1e-3)
