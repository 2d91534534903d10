"""The figures: equal to scikit-learn, sacrebleu and rouge-chinese, and with intervals that cover."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import jieba
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_chinese import Rouge
from sklearn import metrics as sk

from orchestrator.evaluation.intervals import bootstrap, percentile
from orchestrator.evaluation.measure import evaluate_file, guess_task, measure, mistakes
from orchestrator.evaluation.overlap import rouge
from orchestrator.evaluation.rows import Row, write_rows
from orchestrator.lib.errors import InputError

LABELS = ["Business", "Sports", "World", "科技"]
INVALID = "no idea"

IDENTICAL = {
    "English": "The central bank kept its rate unchanged on Thursday.",
    "one word": "Sports",
    "Chinese": "央行周四宣布维持利率不变。",
    "one Chinese word": "体育",
    "mixed": "苹果发布 iPhone 15 Pro，售价 7999 元起",
    "Japanese": "日本銀行は金利を据え置いた。",
    "Korean": "중앙은행은 금리를 동결했다.",
    "Arabic": "أبقى البنك المركزي سعر الفائدة دون تغيير",
    "Thai": "ธนาคารกลางคงอัตราดอกเบี้ย",
    "Russian": "Центральный банк сохранил ставку.",
    "Hindi": "केंद्रीय बैंक ने दर नहीं बदली",
    "Greek": "Η τράπεζα διατήρησε το επιτόκιο",
    "Hebrew": "הבנק המרכזי הותיר את הריבית",
    "emoji": "🎉👨‍👩‍👧🇨🇳",
    "punctuation": "?!…。",
    "digits": "3.14159",
}

CHINESE_PAIRS = [
    ("央行宣布下调存款准备金率，释放长期资金约一万亿元。", "央行决定下调存款准备金率，将释放长期资金约一万亿元。"),
    ("中国女排三比一战胜巴西队，晋级半决赛。", "中国女排以三比一击败巴西队，顺利进入半决赛。"),
    ("研究人员发现一种新的超导材料，临界温度创下纪录。", "科学家发现了新的超导材料。"),
    ("北京明天多云转晴，最高气温二十六度，适合户外活动。", "北京明天晴，最高气温二十六度。"),
    ("该公司第三季度净利润同比增长百分之十五，超出市场预期。", "公司第三季度净利润增长百分之十五，好于预期。"),
    ("教育部公布新的高考改革方案，明年起在六个省份试点。", "教育部发布高考改革方案，六个省份明年开始试点。"),
    ("这部电影上映三天票房突破五亿元，观众评价两极分化。", "电影票房三天突破五亿元。"),
    ("联合国呼吁各方立即停火，保护平民安全。", "联合国敦促各方停火，并保护平民。"),
    ("华为 Mate 60 手机今日开售，首批货源很快售罄。", "华为 Mate 60 今天开卖，首批手机迅速售罄。"),
    ("医生建议老年人每天步行三十分钟，有助于控制血压。", "我不知道这个问题的答案。"),
]
ENGLISH_PAIRS = [
    (
        "The central bank cut its key rate by a quarter point.",
        "The central bank lowered its key rate by a quarter point.",
    ),
    (
        "Brazil beat Spain 3-1 to reach the final of the tournament.",
        "Brazil reached the final after beating Spain 3-1.",
    ),
    ("Researchers found a material that superconducts at room temperature.", "Scientists found a new superconductor."),
    (
        "Rain is expected across the north tomorrow, easing by evening.",
        "Rain is expected tomorrow, easing by the evening.",
    ),
    (
        "Profit rose 15% in the third quarter, beating forecasts.",
        "Third quarter profit rose 15%, which beat forecasts.",
    ),
    ("The film earned $50 million in its opening weekend.", "The film earned about $50 million on its first weekend."),
    (
        "Lawmakers passed the budget after a debate that ran overnight.",
        "The budget passed after an overnight debate.",
    ),
    ("The new phone goes on sale Friday; prices start at $799.", "The phone goes on sale this Friday, from $799."),
    ("Doctors advise half an hour of walking each day.", "I am a language model and cannot answer that."),
    ("The museum reopens in May with a show of early photographs.", "The museum will reopen in May."),
]


def rows_of(pairs: list[tuple[str, str]]) -> list[Row]:
    """Rows from (label, prediction) pairs."""
    return [Row(str(i), "", label, prediction) for i, (label, prediction) in enumerate(pairs)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, INVALID])), min_size=1, max_size=40))
def test_classification_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    truth, named = [t for t, _ in pairs], [p for _, p in pairs]
    known = sorted(set(truth))
    measured = measure(rows_of(pairs), "classification")
    expected = {
        "accuracy": sk.accuracy_score(truth, named),
        "macro_f1": sk.f1_score(truth, named, labels=known, average="macro", zero_division=0),
        "macro_precision": sk.precision_score(truth, named, labels=known, average="macro", zero_division=0),
        "macro_recall": sk.recall_score(truth, named, labels=known, average="macro", zero_division=0),
        "balanced_accuracy": sk.recall_score(truth, named, labels=known, average="macro", zero_division=0),
        "invalid_label_rate": np.mean([p not in known for p in named]),
        "majority_baseline": max(truth.count(label) for label in known) / len(truth),
    }
    assert {name: measured.metrics[name].value for name in expected} == pytest.approx(
        {name: 100 * value for name, value in expected.items()}
    )
    assert_detail_equals_scikit_learn(measured.detail, truth, named, known)


def assert_detail_equals_scikit_learn(detail: dict, truth: list[str], named: list[str], known: list[str]) -> None:
    """The matrix and the per-class figures; what names no known label is scikit-learn's extra class."""
    extra = [p if p in known else INVALID for p in named]
    matrix = sk.confusion_matrix(truth, extra, labels=[*known, INVALID])
    assert detail["confusion_matrix"] == matrix[:-1].tolist()
    per_class = sk.precision_recall_fscore_support(truth, named, labels=known, zero_division=0)
    for i, label in enumerate(known):
        ours = detail["per_class"][label]
        assert [ours["precision"], ours["recall"], ours["f1"]] == pytest.approx(
            [100 * per_class[j][i] for j in range(3)]
        )
        assert ours["support"] == per_class[3][i]


def test_balanced_accuracy_ignores_a_label_without_rows() -> None:
    rows = rows_of([("World", "World"), ("Sports", "Business")])
    measured = measure(rows, "classification", labels=["Business", "World"])
    assert measured.metrics["balanced_accuracy"].value == 50
    assert measured.metrics["macro_recall"].value == pytest.approx(100 / 3)
    assert measured.detail["labels"] == ["Business", "World", "Sports"]


@pytest.mark.parametrize("text", IDENTICAL.values(), ids=IDENTICAL)
def test_identical_text_scores_100_in_every_script(text: str) -> None:
    measured = measure(rows_of([(text, text + "\n")] * 3), "generation")
    assert {name: interval.value for name, interval in measured.metrics.items()} == pytest.approx(
        {**dict.fromkeys(measured.metrics, 100), "empty_rate": 0}
    )


def test_different_text_scores_0() -> None:
    measured = measure(rows_of([("央行降息", "sports"), ("rain", "体育"), ("мир", "")]), "generation")
    for name in ("rouge1", "rouge2", "rougeL", "bleu", "exact_match"):
        assert measured.metrics[name].value == 0, name


def llama_factory_rouge(label: str, prediction: str) -> list[float]:
    """ROUGE-1/2/L as `llamafactory/train/sft/metric.py` computes it."""
    jieba.setLogLevel(logging.WARNING)
    scores = Rouge().get_scores(" ".join(jieba.cut(prediction)), " ".join(jieba.cut(label)))[0]
    return [100 * scores[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]


@pytest.mark.parametrize("pairs", [CHINESE_PAIRS, ENGLISH_PAIRS], ids=["Chinese", "English"])
def test_rouge_agrees_with_llama_factory(pairs: list[tuple[str, str]]) -> None:
    theirs = np.mean([llama_factory_rouge(*pair) for pair in pairs], axis=0)
    ours = measure(rows_of(pairs), "generation").metrics
    assert 20 < theirs[0] < 95
    assert [ours[name].value for name in ("rouge1", "rouge2", "rougeL")] == pytest.approx(theirs, abs=0.5)


@pytest.mark.parametrize(
    ("label", "prediction", "theirs", "ours"),
    [
        ("on and on and on", "on and off", 80, 50),  # we count a word as often as it occurs
        ("мир", "рим", 100, 0),  # jieba splits Cyrillic into letters
        ("Rain fell", "rain fell", 50, 50),  # case matters to both
    ],
)
def test_rouge_differs_from_llama_factory_where_we_say_so(
    label: str, prediction: str, theirs: float, ours: float
) -> None:
    """The differences listed in docs/evaluation.md."""
    assert llama_factory_rouge(label, prediction)[0] == pytest.approx(theirs)
    assert rouge(label, prediction)[0] == pytest.approx(ours)


@pytest.mark.parametrize(("pairs", "tokenizer"), [(CHINESE_PAIRS, "zh"), (ENGLISH_PAIRS, "13a")])
def test_bleu_equals_sacrebleu(pairs: list[tuple[str, str]], tokenizer: str) -> None:
    labels, predictions = zip(*pairs, strict=True)
    expected = sacrebleu.corpus_bleu(list(predictions), [list(labels)], tokenize=tokenizer).score
    assert measure(rows_of(pairs), "generation").metrics["bleu"].value == pytest.approx(expected)


def test_length_ratio_and_exact_match() -> None:
    measured = measure(rows_of([("a b c d", "a b"), ("a b", "a b")]), "generation").metrics
    assert measured["length_ratio"].value == pytest.approx(100 * 4 / 6)
    assert measured["exact_match"].value == 50
    assert "accuracy" not in measured


def test_reasoning_and_empty_answers_are_counted() -> None:
    rows = rows_of(
        [("体育", "<think>体育？娱乐？</think>体育"), ("体育", "<think>娱乐"), ("娱乐", ""), ("娱乐", "娱乐")]
    )
    measured = measure(rows, "classification")
    assert measured.metrics["accuracy"].value == 50
    assert (measured.detail["thinking_stripped"], measured.detail["empty_answers"]) == (2, 2)


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = rows_of([("a b", "a b"), ("c d", "c"), ("e", "f"), ("g h i", "g i")] * 5)
    assert measure(rows, "generation", seed=1) == measure(rows, "generation", seed=1)
    assert measure(rows, "generation", seed=1) != measure(rows, "generation", seed=2)


def test_every_interval_holds_its_value() -> None:
    generator = random.Random(0)
    for n in (1, 2, 7, 60):
        rows = rows_of([(generator.choice(LABELS), generator.choice([*LABELS, INVALID])) for _ in range(n)])
        for name, interval in measure(rows, "classification").metrics.items():
            assert interval.low <= interval.value <= interval.high, name


def test_intervals_cover_the_true_share() -> None:
    """Of 300 samples of 100 rows with a true accuracy of 80, about 95 % have 80 inside (binomial: 92 to 98)."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        right = (generator.random((100, 1)) < 0.8).astype(float)
        interval = bootstrap(right, lambda sums: {"accuracy": sums[:, 0]}, seed)["accuracy"]
        covered += interval.low <= 80 <= interval.high
    assert 0.90 <= covered / 300 <= 0.99


@pytest.mark.parametrize(
    ("value", "bounds", "low", "high"),
    [(100, (0, 100), 96.378, 100), (0, (0, 100), 0, 3.622), (0, (-100, 100), -3.622, 3.622)],
)
def test_100_of_100_is_not_certainty(value: float, bounds: tuple[float, float], low: float, high: float) -> None:
    """The limits are Clopper and Pearson's for 100 of 100 and for 0 of 100."""
    interval = percentile(value, np.full(1000, float(value)), 100, bounds)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)


def test_bootstrap_of_many_rows_stays_in_memory() -> None:
    measured = bootstrap(np.ones((20_000, 2)), lambda sums: {"mean": sums[:, 0] / 200}, 0)
    assert measured["mean"].value == pytest.approx(100)


def test_to_json_is_json() -> None:
    measured = measure(rows_of([("国际", "国际"), ("体育", "国际")]), "classification").to_json()
    assert measured == json.loads(json.dumps(measured, allow_nan=False))
    assert measured["n"] == 2
    assert set(measured["metrics"]["accuracy"]) == {"value", "low", "high"}


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["Sports", "World"] * 5, "classification"),
        (["国际", "体育", "国际"], "classification"),
        ([f"answer {i}" for i in range(30)], "generation"),
        ([f"{i % 60}" for i in range(200)], "generation"),
        (["a long sentence that repeats but is no label at all"] * 9, "generation"),
        (["one"], "generation"),
    ],
)
def test_the_task_is_guessed(labels: list[str], task: str) -> None:
    assert guess_task(rows_of([(label, "x") for label in labels]))[0] == task


def test_a_predictions_file_is_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    write_rows(file, rows_of([("体育", "体育"), ("国际", "体育"), ("体育", "体育"), ("国际", "国际")]))
    guessed = evaluate_file(file)
    assert guessed.metrics["accuracy"].value == 75
    assert (guessed.detail["task"], guessed.detail["task_reason"][:17]) == ("classification", "2 distinct labels")
    given = evaluate_file(file, "generation")
    assert "accuracy" not in given.metrics
    assert given.detail["task_reason"] == "given"


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        measure([], "generation")
    with pytest.raises(InputError, match="unknown task 'regression'"):
        measure(rows_of([("a", "a")]), "regression")  # type: ignore[arg-type]


def test_mistakes_of_labels_are_sorted_by_weight() -> None:
    rows = rows_of(
        [("World", "Sports"), ("Sports", "World"), ("Sports", "what?"), ("World", "Sports"), ("World", "World")]
    )
    found = mistakes(rows, "classification")
    assert [(m["id"], m["named"], m["same_mistake"]) for m in found] == [
        ("2", None, 1), ("0", "Sports", 2), ("3", "Sports", 2), ("1", "World", 1),
    ]  # fmt: skip


def test_mistakes_of_texts_are_sorted_by_overlap() -> None:
    found = mistakes(rows_of([("a b c", "a b x"), ("a b c", "a b c"), ("天气很好", "x"), ("a b", "a")]), "generation")
    assert [m["id"] for m in found] == ["2", "0", "3"]
    assert found[0]["rougeL"] == 0
