"""A reasoning model's text in thought and answer, whole and in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat_template.registry import definition, template_names
from orchestrator.chat_template.thoughts import Parts, Splitter, in_words, split, thought_words
from orchestrator.evaluation.rows import strip_thinking

QWEN = definition("qwen3").thought_words


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\n一步，\n\n两步。\n</think>\n\n是。", Parts("一步，\n\n两步。", "是。")),
        ("<think>\n\n</think>\n\n是。", Parts("", "是。")),
        ("\n<think>so</think>yes", Parts("so", "yes")),
        ("</think>\u3000是。", Parts("", "\u3000是。")),
        ("<think>\nnever ends </thi", Parts("never ends </thi", "")),
        ("\nSports", Parts("", "\nSports")),
        ("a < b, <think>not a thought</think>", Parts("", "a < b, <think>not a thought</think>")),
        ("<thin", Parts("", "<thin")),
        ("", Parts()),
    ],
)
def test_a_thought_is_what_stands_between_the_words_at_the_beginning(text: str, parts: Parts) -> None:
    assert split(text, QWEN) == parts


@pytest.mark.parametrize(
    ("text", "words", "trained"),
    [
        ("<think>\n想\n</think>\n\n是。", QWEN, "<think>\n想\n</think>\n\n是。"),
        ("<think>想</think>是。", QWEN, "<think>\n想\n</think>\n\n是。"),
        (" <think>\n想</think>\n\n<b>是</b>", QWEN, "<think>\n想\n</think>\n\n<b>是</b>"),
        ("<think>想</think>是。", ("<seed:think>", "</seed:think>"), "<seed:think>想</seed:think>是。"),
        ("<think>\n\n</think>\n\n是。", QWEN, "<think>\n\n</think>\n\n是。"),
        ("<think></think>是。", QWEN, "是。"),
        ("<think>never ends", QWEN, "<think>never ends"),
        ("是 <think>x</think>", QWEN, "是 <think>x</think>"),
        ("是。", QWEN, "是。"),
    ],
)
def test_a_thought_is_put_between_the_words_that_training_knows(
    text: str, words: tuple[str, str], trained: str
) -> None:
    assert in_words(text, words) == trained
    assert in_words(trained, words) == trained


def test_a_model_that_does_not_think_has_no_thoughts() -> None:
    assert split("<think>\nx\n</think>\n\ny", thought_words("qwen3", thinking=False)).thought == ""
    assert thought_words("smollm2", thinking=True) is None


PIECES = ["<think>", "\n", "</think>", "</thi", "nk>", "<th", "ink>", "想", " ", "\u2028", "a", "<"]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.lists(st.integers(1, 5)))
def test_pieces_of_any_size_add_up_to_the_whole(text: str, sizes: list[int]) -> None:
    splitter, told, rest = Splitter(QWEN), Parts(), text
    for size in sizes:
        told, rest = told + splitter.feed(rest[:size]), rest[size:]
    assert told + splitter.feed(rest) + splitter.finish() == split(text, QWEN)


def test_a_stream_holds_back_no_more_than_it_must() -> None:
    splitter = Splitter(QWEN)
    pieces = ["<thi", "nk>\n", "first ", "a <", "b\n", "</think>", "\n\n", "是", "。"]
    told = [splitter.feed(piece) for piece in pieces]
    assert [part.thought for part in told] == ["", "", "first", " a", " <b", "", "", "", ""]
    assert [part.answer for part in told] == ["", "", "", "", "", "", "", "是", "。"]


@pytest.mark.parametrize("name", [name for name in template_names() if definition(name).reasons])
def test_every_reasoning_template_splits_what_it_trained(name: str) -> None:
    opening, closing = definition(name).thought_words
    assert split(f"{opening}想一想。{closing}对。", definition(name).thought_words) == Parts("想一想。", "对。")
    if opening.strip() in ("<think>", "◁think▷"):
        assert strip_thinking(f"{opening}想一想。{closing}对。") == "对。"
