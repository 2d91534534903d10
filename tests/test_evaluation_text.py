"""What of an answer is scored: rows, reasoning, words, labels."""

from __future__ import annotations

import json
import random
import string
import sys
from pathlib import Path

import pytest
from rouge_score.tokenizers import DefaultTokenizer

from orchestrator.evaluation.overlap import Tokenizer, extract_label
from orchestrator.evaluation.rows import Row, has_thinking, read_rows, strip_thinking, write_rows
from orchestrator.lib.errors import InputError

LABELS = ("World", "Tech", "Technology", "Tech Policy", "Sports", "N/A")
CHINESE = ("国际", "时政", "财经", "科技", "科技金融", "体育", "娱乐")


@pytest.mark.parametrize(
    ("answer", "labels", "expected"),
    [
        ("Sports", LABELS, "Sports"),
        ("  Sports\n", LABELS, "Sports"),
        ("The answer is Sports.", LABELS, "Sports"),
        ("**Sports**, because Sports pages cover it", LABELS, "Sports"),
        ("Sports or World?", LABELS, None),
        ("Technology", LABELS, "Technology"),
        ("It is Technology.", LABELS, "Technology"),
        ("It is Tech.", LABELS, "Tech"),
        ("It is Tech Policy.", LABELS, "Tech Policy"),
        ("Tech Policy, not Tech", LABELS, None),
        ("Biotech and Techno", LABELS, None),
        ("Worldwide", LABELS, None),
        ("sports", LABELS, None),
        ("N/A", LABELS, "N/A"),
        ("category: N/A", LABELS, "N/A"),
        ("", LABELS, None),
        ("I do not know", LABELS, None),
        ("体育", CHINESE, "体育"),
        ("这条新闻属于体育类。", CHINESE, "体育"),
        ("体育，也可能是娱乐", CHINESE, None),
        ("属于科技金融", CHINESE, "科技金融"),
        ("答案是Sports。", LABELS, "Sports"),
        ("新闻Sports体育", ("Sports",), "Sports"),
        ("스포츠입니다", ("스포츠", "경제"), "스포츠"),
        ("это спорт", ("спорт", "мир"), "спорт"),
        ("это спортсмен", ("спорт", "мир"), None),
        ("यह खेल है", ("खेल", "विज्ञान"), "खेल"),
        ("खेलों", ("खेल", "विज्ञान"), None),
        ("ข่าวกีฬาวันนี้", ("กีฬา", "บันเทิง"), "กีฬา"),
        ("C++ it is", ("C", "C++"), "C++"),
        ("a [b] answer", ("[b]", "a|b"), "[b]"),
        ("anything", (), None),
        ("anything", ("",), None),
    ],
)
def test_label_extraction(answer: str, labels: tuple[str, ...], expected: str | None) -> None:
    assert extract_label(answer, labels) == expected


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("Sports", "Sports", False),
        ("<think>\n\n</think>\n\nSports\n", "Sports", True),
        ("<think>World? No.</think>Sports", "Sports", True),
        ("<think>体育还是娱乐？</think>体育", "体育", True),
        ("<think>it never ends Sports", "", True),
        ("the prompt opened it</think>\nSports", "Sports", True),
        ("<think>a<think>b</think>c</think>Sports", "Sports", True),
        ("<think>a</think>Sports<think>b</think>", "Sports", True),
        ("Sports<think>cut of", "Sports", True),
        ("a < think > b", "a < think > b", False),
        ("◁think▷hm◁/think▷Sports", "Sports", True),
        ("<|channel>thought\nhm<channel|>Sports", "Sports", True),
        ("", "", False),
    ],
)
def test_reasoning_is_not_scored(text: str, answer: str, thought: bool) -> None:
    assert (strip_thinking(text), has_thinking(text)) == (answer, thought)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The cat, it sat.", ["The", "cat", ",", "it", "sat", "."]),
        ("iPhone 15 发布会今天举行", ["iPhone", "15", "发布会", "今天", "举行"]),
        ("ＡＩ技术１２３", ["AI", "技术", "123"]),
        ("up 3.5%, or $7.", ["up", "3.5%", ",", "or", "$", "7", "."]),
        ("Привет, мир", ["Привет", ",", "мир"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("กีฬา", ["กี", "ฬ", "า"]),
        ("ありがとう", list("ありがとう")),
        ("🎉🎉!", ["🎉", "🎉", "!"]),
        (" \n", []),
    ],
)
def test_words_of_any_script(text: str, tokens: list[str]) -> None:
    assert Tokenizer().tokenize(text) == tokens


def test_latin_words_are_those_of_rouge_score() -> None:
    generator = random.Random(0)
    alphabet = string.ascii_letters + string.digits + "    ,-_'\"!?\n"  # no full stop: we keep 3.5 together
    for _ in range(200):
        text = "".join(generator.choices(alphabet, k=80))
        ours = [token.lower() for token in Tokenizer().tokenize(text) if token.isalnum()]
        assert ours == DefaultTokenizer().tokenize(text)


def test_jieba_is_loaded_for_chinese_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.evaluation import overlap

    overlap._cut.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    assert overlap.Tokenizer().tokenize("no Chinese, ประเทศไทย") != []
    with pytest.raises(ImportError):
        overlap.Tokenizer().tokenize("中文")


def test_rows_survive_a_round_trip(tmp_path: Path) -> None:
    rows = [Row("1", "新闻分类：国足", "体育", "体育\u2028育"), Row("b", 'a "quoted"\nline', "Sports", "")]
    write_rows(tmp_path / "deep" / "tuned.jsonl", rows)
    assert read_rows(tmp_path / "deep" / "tuned.jsonl") == rows
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tuned.jsonl"]


def test_rows_of_other_tools_are_read(tmp_path: Path) -> None:
    file = tmp_path / "generated_predictions.jsonl"
    file.write_bytes(
        b"\xef\xbb\xbf"
        + b'{"prompt": "p", "predict": "Sports", "label": "Sports\\n"}\r\n\r\n{"label": 1, "prediction": 1}'
    )
    first, second = read_rows(file)
    assert (first.id, first.prompt, first.answer, first.truth) == ("1", "p", "Sports", "Sports")
    assert second == Row("2", "", "1", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("\n \n", "holds no rows"),
        ('{"label": "a", "prediction": "a"}\n{"label": "a"', "line 2: not JSON"),
        ('["a"]', "line 1: a JSON object is expected"),
        ('{"label": "a"}', "line 1: no 'prediction' among 'id', 'prompt', 'label'"),
        ('{"prediction": "a"}', "line 1: no 'label'"),
        ('{"label": null, "prediction": "a"}', "line 1: no 'label', for it is null"),
        ('{"label": "a", "prediction": null}', "line 1: no 'prediction', for it is null"),
        (
            '{"id": 7, "label": "a", "prediction": "a"}\n\n{"id": "7", "label": "b", "prediction": "b"}',
            "lines 1 and 3 have the same id '7'",
        ),
        ('{"label": " ", "prediction": "a"}', "line 1: the label is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_rows(file)
    assert message in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(json.dumps({"label": "体育", "prediction": "体育"}, ensure_ascii=False).encode("gb18030"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_rows(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "missing.jsonl")
