"""What the checks find in planted trouble, and what they leave in peace."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.data.checks import Finding, check_data, require_clean
from orchestrator.data.checks.copies import SENSITIVE_PAIRS, is_near_copy, near_between, near_within
from orchestrator.data.checks.corpus import Frame, build
from orchestrator.data.checks.labels import are_labels, label_variants, visible
from orchestrator.data.checks.minhash import signatures
from orchestrator.data.checks.text import (
    SCRIPT_NAMES,
    has_personal_data,
    same_text,
    scripts,
    signs,
    unfinished,
    words_of,
)
from orchestrator.data.checks.tokens import TokenCounter, most_tokens
from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.reading import RowProblem, load
from orchestrator.data.split import label_counts
from orchestrator.lib.errors import InputError

DATASETS = Path(__file__).parent.parent / "datasets"
PREFIX = {"news": "News category: ", "news-zh": "新闻分类："}
Rows = list[Conversation]


def row(question: str, answer: str = "x", number: int = 1, source: str = "train.json") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), source=source, row=number)


def rows(texts: Sequence[str], answers: str | Sequence[str] = "x", source: str = "train.json") -> Rows:
    given = [answers] * len(texts) if isinstance(answers, str) else answers
    return [row(text, answer, n, source) for n, (text, answer) in enumerate(zip(texts, given, strict=True), 1)]


def shipped(name: str) -> tuple[Rows, Rows]:
    train, held_out = (load(DATASETS / name / f"{part}.json").conversations for part in ("train", "eval"))
    return list(train), list(held_out)


def found(findings: Sequence[Finding], kind: str) -> Finding:
    return next(finding for finding in findings if finding.kind == kind)


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


# ---- leakage


@pytest.mark.parametrize("name", PREFIX)
def test_the_shipped_sets_raise_no_alarm(name: str) -> None:
    assert check_data(*shipped(name)) == []


def punctuated(text: str, random_: random.Random) -> str:
    return "“" + text.replace(" ", ", ", 1).replace("，", " ") + "”!"


def swapped(text: str, random_: random.Random) -> str:
    words = text.split() if " " in text and text.isascii() else [text[i : i + 3] for i in range(0, len(text), 3)]
    at = random_.randrange(len(words) - 1)
    words[at], words[at + 1] = words[at + 1], words[at]
    return (" " if text.isascii() else "").join(words)


def edited(text: str, random_: random.Random) -> str:
    for _ in range(2):
        at = random_.randrange(1, len(text))
        text = text[:at] + random_.choice("ae的在") + text[at + random_.randint(0, 1) :]
    return text


def framed(text: str, random_: random.Random) -> str:
    return random_.choice(["Update: ", "快讯 "]) + text.upper()


CHANGES: list[Callable[[str, random.Random], str]] = [punctuated, swapped, edited, framed]


@pytest.mark.parametrize("name", PREFIX)
@pytest.mark.parametrize("seed", range(5))
def test_planted_near_copies_are_found_completely_and_alone(name: str, seed: int) -> None:
    train, held_out = shipped(name)
    random_ = random.Random(seed)
    places = sorted(random_.sample(range(len(held_out)), 20))
    for number, place in enumerate(places):
        original = random_.choice(train)
        text = CHANGES[number % 4](original.prompt.removeprefix(PREFIX[name]), random_)
        copy = (Message("user", PREFIX[name] + text), *original.messages[1:])
        held_out[place] = replace(held_out[place], messages=copy)
    leak = found(check_data(train, held_out), "leakage_near")
    assert sorted(number for _, number in leak.rows) == [place + 1 for place in places]
    assert leak.severity == "error"
    assert leak.message.startswith("20 of 100 ")


def test_exact_copies_and_contradictions_are_told_apart() -> None:
    train, held_out = shipped("news-zh")
    held_out[3] = replace(held_out[3], messages=train[7].messages)
    other = Message("assistant", "体育" if train[9].answer != "体育" else "财经")
    held_out[5] = replace(held_out[5], messages=(train[9].messages[0], other))
    findings = check_data(train, held_out)
    assert [number for _, number in found(findings, "leakage_exact").rows] == [4]
    assert [number for _, number in found(findings, "leakage_label_conflict").rows] == [6]
    assert [finding.severity for finding in findings] == ["error", "error"]


def test_a_few_near_copies_are_a_warning() -> None:
    train, held_out = shipped("news")
    text = edited(train[0].prompt, random.Random(1))
    held_out[0] = replace(held_out[0], messages=(Message("user", text), *train[0].messages[1:]))
    assert found(check_data(train, held_out), "leakage_near").severity == "warning"


NEAR = [
    ("央行宣布下调存款准备金率", "央行宣布 下调存款准备金率！", True, True),
    ("央行宣布下调存款准备金率", "央行再度上调贷款基准利率", True, False),
    ("markets rally as fed holds rates", "markets rally as fed cuts rates", True, True),
    ("markets rally as fed holds rates", "rates holds fed as rally markets", True, True),
    ("what is 13 plus 24", "what is 14 plus 24", False, False),
    ("what is the capital of france", "what is the capital of greece", False, False),
    ("what is the capital of france", "what's the capital of France?", False, True),
    ("中国的首都是哪里", "法国的首都是哪里", False, False),
    ("what is 13 plus 24", "what is 14 plus 24", True, True),
    ("spears advance to quarterfinals", "hewitt cruises to quarterfinals", True, False),
]


@pytest.mark.parametrize(("a", "b", "same_answer", "expected"), NEAR)
def test_near_copies(a: str, b: str, same_answer: bool, expected: bool) -> None:
    assert is_near_copy(words_of(same_text(a)), words_of(same_text(b)), same_answer) is expected


def test_earlier_turns_tell_the_same_last_question_apart() -> None:
    def talk(first: str, number: int, source: str) -> Conversation:
        said = (first, f"about {first}", "thanks, and why?", f"because {first}")
        turns = [Message("assistant" if n % 2 else "user", text) for n, text in enumerate(said)]
        return Conversation(tuple(turns), source=source, row=number)

    topics = ["gravity and apples", "the tides of the moon", "bread that will not rise", "old maps of the sea"]
    train = [talk(topic, n, "train.json") for n, topic in enumerate(topics[:3] * 4, 1)]
    assert "leakage_exact" not in kinds(check_data(train, [talk(topics[3], 1, "eval.json")]))


def large(count: int, seed: int) -> list[str]:
    words = [word for part in shipped("news")[0] for word in part.prompt.split()[2:]]
    random_ = random.Random(seed)
    return [" ".join(random_.choices(words, k=random_.randint(7, 70))) for _ in range(count)]


def test_the_search_for_large_sets_finds_near_copies_too() -> None:
    """Enough rows for the fast search; every 100th row nearly repeats the one before, long ones included."""
    texts = large(21_000, seed=3)
    expected = set()
    for index in range(100, len(texts), 100):
        words = texts[index - 1].split()
        words[len(words) // 2] = "zeppelin"
        texts[index] = " ".join(words)
        expected.add((index - 1, index))
    corpus = build(rows(texts))
    assert len(corpus) ** 2 // 2 > SENSITIVE_PAIRS
    pairs = set(near_within(corpus))
    assert len(pairs & expected) >= 0.99 * len(expected)
    assert len(pairs - expected) <= 2


def test_between_two_sets_pairs_name_both_rows() -> None:
    texts = large(60, seed=4)
    held_out = [texts[7].replace(texts[7].split()[2], "zeppelin", 1), "nothing of the kind, at all"]
    assert near_between(build(rows(texts)), build(rows(held_out))) == [(7, 0)]


def test_signatures_estimate_the_jaccard_similarity() -> None:
    a, b = "abcdefghijklmnopqrstuvwxyz" * 2, "abcdefghijklmnopqrstuvwxyz" + "0123456789"
    ours = [{text[i : i + 4] for i in range(len(text) - 3)} for text in (a + "\x03" * 3, b + "\x03" * 3)]
    exact = len(ours[0] & ours[1]) / len(ours[0] | ours[1])
    left, right = signatures([a, b])
    assert abs(float(np.mean(left == right)) - exact) < 0.12
    assert (signatures(["同一段文字"]) == signatures(["别的", "同一段文字", ""])[1]).all()


# ---- copies and labels inside a set


def test_copies_inside_a_set() -> None:
    train, _ = shipped("news")
    train.append(row(train[0].prompt, train[0].answer, 301, train[0].source))
    train.append(row(train[1].prompt, "?", 302, train[0].source))
    train.append(row(train[2].prompt + " today", train[2].answer, 303, train[0].source))
    findings = check_data(train)
    assert [number for _, number in found(findings, "duplicate_exact").rows] == [301]
    assert sorted(number for _, number in found(findings, "label_conflict").rows) == [2, 302]
    assert [number for _, number in found(findings, "duplicate_near").rows] == [303]
    assert found(findings, "label_conflict").severity == "warning"
    assert "`orchestrator data clean`" in found(findings, "duplicate_exact").message


@pytest.mark.parametrize(("wrong", "severity"), [(1, "warning"), (3, "warning"), (4, "error")])
def test_one_contradictory_row_of_300_warns_and_more_than_one_percent_is_an_error(wrong: int, severity: str) -> None:
    train, _ = shipped("news-zh")
    for number in range(wrong):
        other = next(label for label in ("体育", "财经") if label != train[number].answer)
        train[-1 - number] = row(train[number].prompt, other, 300 - number, train[0].source)
    assert len(train) == 300
    conflict = found(check_data(train), "label_conflict")
    assert conflict.severity == severity
    assert f"at least {wrong} of 300 rows" in conflict.message
    first = conflict.examples[0]
    assert f"→ '{train[0].answer}'" in first and first.count("→") == 2


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("Sports", "'Sports'"),
        ("Sports ", "'Sports␣'"),
        (" 体育", "'␣体育'"),
        ("Sci  Tech", "'Sci␣␣Tech'"),
        ("Sci Tech\n", "'Sci Tech⏎'"),
        ("体育\u3000", "'体育[U+3000]'"),
        ("\tWorld\u00a0", "'⇥World[U+00A0]'"),
    ],
)
def test_white_space_of_a_label_is_seen(label: str, shown: str) -> None:
    assert visible(label) == shown


def test_leakage_names_what_takes_it_away() -> None:
    train, held_out = shipped("news")
    held_out.append(row(train[0].prompt, train[0].answer, 101, held_out[0].source))
    findings = check_data(train, held_out)
    assert "`orchestrator data clean`" in found(findings, "leakage_exact").message
    with pytest.raises(InputError) as refused:
        require_clean(findings)
    assert "orchestrator data clean TRAIN --eval EVAL" in refused.value.hint


def test_different_answers_to_a_question_are_fine_where_answers_are_no_labels() -> None:
    texts = [*large(20, seed=1), "same question"] * 2
    findings = check_data(rows(texts, [f"{n}: {text}" for n, text in enumerate(texts)]))
    assert "label_conflict" not in kinds(findings)


LABELS = [
    ({"Sports": 50, "Sports ": 2, "Sport": 9, "World": 40}, {"Sports ": "Sports", "Sport": "Sports"}),
    ({"体育": 50, " 体育": 3, "财经": 40}, {" 体育": "体育"}),
    ({"Technology": 60, "Techonlogy": 1, "World": 40}, {"Techonlogy": "Technology"}),
    ({"SPORTS": 3, "sports": 30}, {"SPORTS": "sports"}),
    ({"class 1": 30, "class 2": 30, "1": 5, "11": 5}, {}),
    ({"国内": 30, "国外": 30, "import": 20, "export": 30, "yes": 5, "no": 6}, {}),
    ({"Region A": 30, "Region B": 30}, {}),
    ({"Travel": 60, "Gravel": 9, "gravel": 1}, {"gravel": "Gravel"}),  # and no slip of the frequent one
]


@pytest.mark.parametrize(("labels", "variants"), LABELS)
def test_spellings_of_a_label(labels: dict[str, int], variants: dict[str, str]) -> None:
    assert label_variants(Counter(labels)) == variants


def test_what_labels_are() -> None:
    assert are_labels(Counter({"体育": 5, "财经": 5}))
    assert not are_labels(Counter({f"answer {n}": 1 for n in range(100)}))
    assert not are_labels(Counter({"always the same": 100}))
    assert not are_labels(Counter({"x" * 61: 50, "y": 50}))


def test_label_findings_name_the_rows() -> None:
    texts = large(80, seed=5)
    train = rows(texts[:60], ["Sports"] * 50 + ["sport "] * 6 + ["World"] * 4)
    held_out = rows(texts[60:], ["Sports"] * 19 + ["Music"], "eval.json")
    findings = check_data(train, held_out)
    assert [number for _, number in found(findings, "label_variant").rows] == [51, 52, 53, 54, 55, 56]
    assert "56 training rows for 'Sports', but 4 for 'World'" in found(findings, "class_imbalance").message
    missing = [finding for finding in findings if finding.kind == "class_missing"]
    assert [(finding.severity, finding.rows) for finding in missing] == [
        ("warning", (("eval.json", 20),)),
        ("info", ()),
    ]


# ---- odd rows

SIGNS = [
    ("plain text, 正常的文字。\n第二行\tof it", []),
    ("zero\u200bwidth", ["control_characters"]),
    ("bell\x07", ["control_characters"]),
    ("caf\u00c3\u00a9 au lait", ["mojibake"]),
    ("it\u00e2\u20ac\u2122s", ["mojibake"]),
    ("锟斤拷锟斤拷", ["mojibake"]),
    ("体育".encode().decode("cp1252"), ["mojibake"]),
    ("体育新闻".encode().decode("latin-1"), ["control_characters", "mojibake"]),
    ("сегодня".encode().decode("cp1252", "ignore"), ["mojibake"]),
    ("so funny \U0001f600".encode().decode("cp1252", "ignore"), ["mojibake"]),
    ("Il a dit «\u00a0c'est l'été\u00a0», puis «café»\u00a0: «là» et «VIVE LA LIBERTÉ\u00a0»", []),
    ("Er sagte »Spaß« und «Spaß»; «à 5\u00a0°C»", []),
    ("café – déjà vu, 50 °C, “quoted”", []),
    ("AT&amp;T &lt;b&gt;", ["markup"]),
    ("McDonald #39;s", ["markup"]),
    ("R&D beats Q&A #1", []),
    ("end it <|im_end|> now", ["template_tokens"]),
    ("<｜User｜>hi", ["template_tokens"]),
    ("a < b and b > c, list[0]", []),
    ("write to li.lei@example.com", ["personal_data"]),
    ("电话13812345678", ["personal_data"]),
    ("call +44 20 7946 0958 now", ["personal_data"]),
    ("身份证11010519491231002X", ["personal_data"]),
    ("订单110105194912310021", []),
    ("in 2024, 1234567890 of 20240101", []),
]


@pytest.mark.parametrize(("text", "expected"), SIGNS)
def test_signs(text: str, expected: list[str]) -> None:
    assert list(signs(text)) == expected


def test_a_chinese_id_needs_its_checksum() -> None:
    assert has_personal_data("11010519491231002X")
    assert not has_personal_data("110105194912310021")


def test_scripts() -> None:
    texts = ["hello", "苹果发布iPhone 15 Pro", "こんにちは世界", "안녕", "привет", "12:30", "مرحبا", ""]
    names = [SCRIPT_NAMES[index] for index in scripts(texts)]
    assert names == ["latin", "chinese", "kana", "hangul", "cyrillic", "none", "arabic", "none"]


def test_odd_rows_are_named() -> None:
    texts = large(60, seed=6)
    texts[4] = "an endless row " + "word " * 2000
    texts[9] = "这一行是中文写的，别的都不是"
    texts[11] = "written to bob@example.com"
    problems = [RowProblem("empty_row", "train.json", 61, "response is empty")]
    findings = check_data([*rows(texts), *problems])
    assert found(findings, "huge_row").rows == (("train.json", 5),)
    assert found(findings, "mixed_language").rows == (("train.json", 10),)
    assert found(findings, "personal_data").rows == (("train.json", 12),)
    assert found(findings, "empty_row").rows == (("train.json", 61),)
    assert found(findings, "empty_row").severity == "error"


def test_texts_cut_at_one_length() -> None:
    texts = [text.ljust(400, "y")[: 300 if n < 8 else 250 + n] for n, text in enumerate(large(30, seed=7))]
    assert len(found(check_data(rows(texts, "")), "truncated_text").rows) == 8


def test_answers_that_stop_in_the_middle() -> None:
    sentence = "A long answer goes on and on, clause after clause, until at last it comes to a proper end"
    texts = large(40, seed=8)
    answers = [f"{n} {sentence}{',' if n == 3 else '.'}" for n in range(40)]
    assert found(check_data(rows(texts, answers)), "truncated_text").rows == (("train.json", 4),)
    assert unfinished(sentence) and not unfinished("short") and not unfinished(sentence + "。")


def test_prompts_that_name_their_label() -> None:
    texts = [f"{text} Sports" if n < 30 else text for n, text in enumerate(large(60, seed=9))]
    findings = check_data(rows(texts, ["Sports"] * 30 + ["World"] * 30))
    assert found(findings, "label_in_prompt").severity == "warning"


def test_few_rows() -> None:
    findings = check_data(rows(large(9, seed=1)), rows(large(20, seed=2), source="eval.json"))
    assert [f.severity for f in findings if f.kind == "few_rows"] == ["error", "warning"]


def test_nothing_at_all() -> None:
    assert [finding.kind for finding in check_data([])] == ["few_rows"]


# ---- tokens


def test_only_rows_that_could_be_too_long_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.data.checks.tokens.SAMPLE", 5)
    counted: list[int] = []

    def count(conversation: Conversation) -> int:
        counted.append(conversation.row)
        return len(conversation.prompt)

    texts = ["short"] * 50
    texts[30] = "long " * 100
    counter = TokenCounter(count, cutoff_len=400)
    findings = check_data(rows(texts), tokens=counter)
    assert counted == [1, 2, 3, 4, 5, 31]
    assert found(findings, "tokens_over_cutoff").rows == (("train.json", 31),)
    assert found(findings, "tokens_over_cutoff").severity == "error"
    assert counter.to_json()["tokens"]["longest"] == 500
    assert sum(counter.to_json()["tokens"]["bins"]) == 6 - 1


def test_the_bound_holds_for_chinese() -> None:
    assert most_tokens(row("体" * 100)) >= 300
    assert most_tokens(Conversation((Message("user", "q"),), chosen="a", rejected="体" * 100)) >= 300


# ---- findings and frames


def test_errors_stop_unless_they_are_accepted() -> None:
    findings = [Finding("leakage_exact", "error", "3 rows"), Finding("duplicate_near", "warning", "1 row")]
    with pytest.raises(InputError, match="leakage_exact: 3 rows") as caught:
        require_clean(findings)
    assert "accept: [leakage_exact]" in caught.value.hint
    require_clean(findings, accept=["leakage_exact"])


def test_a_finding_as_json() -> None:
    finding = Finding("huge_row", "warning", "m", (("a.json", 3),), ("text",))
    assert finding.to_json() == {
        "kind": "huge_row",
        "severity": "warning",
        "message": "m",
        "rows": [{"file": "a.json", "row": 3}],
        "examples": ["text"],
    }


def test_a_common_frame_is_left_out_of_comparisons() -> None:
    frame = Frame.of([f"请判断下面新闻的类别：{text}。只回答类别。" for text in large(12, seed=2)])
    assert (frame.prefix, frame.suffix) == ("请判断下面新闻的类别：", "。只回答类别。")
    assert frame.inside("请判断下面新闻的类别：降息。只回答类别。") == "降息"
    assert frame.inside("别的问题") == "别的问题"
    assert Frame.of(["a b", "a c"]) == Frame()


def test_a_thought_is_no_part_of_a_label() -> None:
    def thought(label: str) -> str:
        return f"<think>\n这是{label}。\n</think>\n\n{label}"

    labels = [thought(("Sports", "体育")[number % 2]) for number in range(20)]
    train = rows([f"headline {number}" for number in range(20)], labels)
    assert label_counts(train) == {"Sports": 10, "体育": 10}
    [unseen, *_] = missing(train, rows(["held out"] * 2, thought("Science")))
    assert unseen.message == "never in the training rows: 'Science'"


def test_a_message_names_ten_labels() -> None:
    held_out = rows([f"headline {number}" for number in range(14)], [f"label {number:02}" for number in range(14)])
    [found, *_] = missing(rows(["another"], "label"), held_out)
    assert found.message.endswith("'label 09' and 4 more")


def missing(train: Rows, held_out: Rows) -> list[Finding]:
    return [found for found in check_data(train, held_out, labels_task=True) if found.kind == "class_missing"]
