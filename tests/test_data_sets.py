"""Splitting, importing, cleaning, counting, and putting a spec's sets together."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.data import data
from orchestrator.data import hub
from orchestrator.data.assemble import Wanted, assemble
from orchestrator.data.checks import check_data
from orchestrator.data.clean import clean, clean_files, tidy
from orchestrator.data.conversation import Conversation, Message
from orchestrator.data.import_ import Recipe, import_file
from orchestrator.data.reading import load
from orchestrator.data.split import split, stats_of_file
from orchestrator.lib.errors import InputError, MissingError
from orchestrator.spec.load import load_project
from orchestrator.spec.sections import Data

ROOT = Path(__file__).parent.parent
NEWS = ROOT / "datasets" / "news"
NEWS_ZH = ROOT / "datasets" / "news-zh"


def rows(path: Path = NEWS_ZH / "train.json") -> list[Conversation]:
    return list(load(path).conversations)


def row(question: str, answer: str, number: int = 1) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), source="t.json", row=number)


def table(path: Path, source: Path = NEWS_ZH, extra: str = "", encoding: str = "utf-8") -> Path:
    """The shipped rows as people have them: a table with a title and a category."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["标题", "类别", "来源"])
        for number, each in enumerate(rows(source / "train.json")):
            writer.writerow([each.prompt.split("：", 1)[-1], each.answer, f"报纸{number % 40}"])
        file.write(extra)
    return path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=True)


# ---- split


def test_a_split_is_stratified_seeded_and_complete() -> None:
    every = rows()
    train, held_out = split(every, 0.25, seed=1)
    assert Counter(each.answer for each in held_out) == dict.fromkeys({each.answer for each in every}, 12)
    assert sorted(each.row for each in train + held_out) == list(range(1, 301))
    assert [each.row for each in train] == sorted(each.row for each in train)
    assert split(every, 0.25, seed=1) == (train, held_out)
    assert split(every, 0.25, seed=2) != (train, held_out)


def test_copies_never_straddle() -> None:
    every = rows()
    every += [row(each.prompt + "。", each.answer, 301 + n) for n, each in enumerate(every[:60])]
    every += [row(each.prompt, each.answer, 401 + n) for n, each in enumerate(every[:30])]
    for seed in range(5):
        train, held_out = split(every, 0.3, seed=seed)
        assert {f.kind for f in check_data(train, held_out)} <= {"duplicate_near", "duplicate_exact"}
        assert 90 <= len(held_out) <= 140


def test_groups_stay_on_one_side() -> None:
    every = rows()
    groups = [f"source {each.row % 20}" for each in every]
    train, held_out = split(every, 0.25, seed=3, groups=groups)
    sides = [{each.row % 20 for each in side} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    assert 45 <= len(held_out) <= 105


def test_rare_labels_are_held_out_too() -> None:
    every = [row(f"完全不同的句子第{n}号 {chr(0x4E00 + n * 37)}", "多" if n < 40 else "少", n + 1) for n in range(42)]
    _, held_out = split(every, 0.1, seed=0)
    assert Counter(each.answer for each in held_out) == {"多": 4, "少": 1}


def test_what_cannot_be_split_says_so() -> None:
    with pytest.raises(InputError, match="cannot be held out"):
        split(rows(), 0.25, groups=["one group"] * 300)


# ---- import


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
def test_a_spreadsheet_becomes_a_data_set(tmp_path: Path, encoding: str) -> None:
    path = table(tmp_path / "news.csv", encoding=encoding)
    recipe = Recipe(columns={"prompt": "新闻分类：{标题}", "response": "类别"}, system="你是编辑。")
    done = import_file(path, tmp_path / "set", recipe)
    assert (done.train, done.held_out, done.left_out) == (228, 72, ())
    assert done.labels == dict.fromkeys(done.labels, 50)
    written = rows(tmp_path / "set" / "train.json") + rows(tmp_path / "set" / "eval.json")
    assert {each.prompt for each in written} == {each.prompt for each in rows()}
    assert {each.system for each in written} == {"你是编辑。"}
    assert done.snippet().splitlines()[-1] == "  max_new_tokens: 16"


def test_bad_rows_are_left_out_and_named(tmp_path: Path) -> None:
    path = table(tmp_path / "news.csv", extra=",体育,x\n没有类别,,x\n多,了,一,格\n")
    done = import_file(path, tmp_path / "set", Recipe(columns={"prompt": "{标题}", "response": "类别"}))
    assert [(p.kind, p.row) for p in done.left_out] == [("empty_row", 301), ("empty_row", 302), ("column_count", 303)]
    assert done.train + done.held_out == 300


def test_groups_by_column(tmp_path: Path) -> None:
    recipe = Recipe(columns={"prompt": "{标题}（{来源}）", "response": "类别"}, group="来源")
    import_file(table(tmp_path / "news.csv"), tmp_path / "set", recipe)
    papers = [
        {each.prompt.rsplit("（")[-1] for each in rows(tmp_path / "set" / f"{part}.json")} for part in ("train", "eval")
    ]
    assert papers[1] and not papers[0] & papers[1]
    with pytest.raises(InputError, match="no column 'paper'"):
        import_file(tmp_path / "news.csv", tmp_path / "b", Recipe(columns=recipe.columns, group="paper"))


def test_a_data_set_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    path = table(tmp_path / "news.csv")
    import_file(path, tmp_path / "set", Recipe())
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "set").iterdir()}
    assert import_file(path, tmp_path / "set", Recipe()).train > 0  # the same again, with --write-spec this time
    other = Recipe(fraction=0)
    with pytest.raises(InputError, match="already holds"):
        import_file(path, tmp_path / "set", other)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "set").iterdir()} == before
    assert import_file(path, tmp_path / "set", other, overwrite=True).train > 0
    assert [file.name for file in (tmp_path / "set").iterdir()] == ["train.json"]


def test_pairs_are_imported_whole(tmp_path: Path) -> None:
    pairs = [{"prompt": each.prompt, "chosen": each.answer, "rejected": "不知道"} for each in rows()]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    done = import_file(tmp_path / "pairs.json", tmp_path / "set", Recipe(kind="dpo"))
    back = load(tmp_path / "set" / "train.json", "dpo")
    assert (len(back.conversations), back.problems) == (done.train, ())
    assert {each.rejected for each in back.conversations} == {"不知道"}


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("title,label\nx,\n", encoding="utf-8")
    with pytest.raises(InputError, match="no row can be used: label is empty"):
        import_file(tmp_path / "a.csv", tmp_path / "set", Recipe())


# ---- clean


def test_cleaning_changes_what_nobody_would_argue_with() -> None:
    every, held_out = rows(), rows(NEWS_ZH / "eval.json")
    dirty = [
        row(f" {every[0].prompt}\u200b\n", every[0].answer, 1),
        row(every[1].prompt, f" {every[1].answer}", 2),
        row(every[1].prompt, every[1].answer, 3),
        row(held_out[5].prompt, held_out[5].answer, 4),
        row(held_out[6].prompt + "！", held_out[6].answer, 5),
    ]
    done = clean(dirty + every[2:], held_out)
    assert [(change.kind, change.row.row) for change in done.changes] == [
        ("stripped", 1),
        ("stripped", 2),
        ("leaked", 4),
        ("leaked", 5),
        ("duplicate", 3),
    ]
    assert [each.messages for each in done.train] == [each.messages for each in every]
    assert done.held_out == held_out


def test_cleaning_unifies_labels() -> None:
    every = [row(each.prompt, each.answer, each.row) for each in rows(NEWS / "train.json")]
    every[3] = row(every[3].prompt, every[3].answer.upper(), every[3].row)
    done = clean(every)
    assert [change.kind for change in done.changes] == ["label"]
    assert {each.answer for each in done.train} == {each.answer for each in rows(NEWS / "train.json")}
    assert clean(done.train).changes == []


def test_cleaning_keeps_pairs_and_calls() -> None:
    prompts = [each.prompt for each in rows()]
    labels = ["Sport", "World"] * 150
    labels[0] = "sport"
    pairs = [
        Conversation((Message("user", text),), chosen=label, rejected="none", row=number)
        for number, (text, label) in enumerate(zip(prompts, labels, strict=True), 1)
    ]
    pairs[2] = replace(pairs[2], chosen="SPORT", rejected="Sport")  # it teaches the spelling
    done = clean(pairs)
    assert [(each.prompt, each.messages) for each in done.train] == [(each.prompt, each.messages) for each in pairs]
    assert (done.train[0].chosen, done.train[2].chosen) == ("Sport", "SPORT")
    calls = ['{"name": "search", "arguments": {}}', '{"name": "weather", "arguments": {}}'] * 150
    calls[0] = '{"name":"search", "arguments":{}}'
    called = [
        Conversation((Message("user", text), Message("function_call", call)), row=number)
        for number, (text, call) in enumerate(zip(prompts, calls, strict=True), 1)
    ]
    done = clean(called)
    assert done.train[0].messages[1] == Message("function_call", calls[2])


def test_contradictions_are_left_to_people() -> None:
    every = [*rows(), row(rows()[0].prompt, "娱乐" if rows()[0].answer != "娱乐" else "体育", 301)]
    assert clean(every).train == every


def test_nothing_is_cleaned_in_place(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text((NEWS / "train.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="holds the files to be cleaned"):
        clean_files(path, None, tmp_path)


def test_characters_that_end_a_line_keep_words_apart() -> None:
    untidy = row("one\u2028two\u2029three\x85four\x0bfive\x0csix\u200b", "x")
    assert tidy(untidy).prompt == "one\ntwo\nthree\nfour\nfive\nsix"


def test_tidy_reaches_every_text() -> None:
    message = (Message("user", " q "),)
    untidy = Conversation(message, system=" s ", chosen=" a\x07", rejected="b\n")
    assert tidy(untidy) == Conversation((Message("user", "q"),), system="s", chosen="a", rejected="b")


# ---- a spec's sets


def wanted(folder: Path, **changes: Any) -> Wanted:
    return Wanted(folder, Data(**{"train": "train.json", "eval": "eval.json", "seed": 1, **changes}), labels=True)


def test_a_spec_names_two_files() -> None:
    sets = assemble(wanted(NEWS))
    assert (len(sets.train), len(sets.eval), sets.read, list(sets.findings)) == (300, 100, 400, [])


def test_rows_are_held_out_and_sampled() -> None:
    sets = assemble(wanted(NEWS, eval=(), eval_fraction=0.2, max_samples=50))
    assert (len(sets.train), len(sets.eval)) == (50, 60)
    assert assemble(wanted(NEWS, eval=(), eval_fraction=0.2, max_samples=50)) == sets


def test_weights_are_shares_of_a_mixture_without_repeats() -> None:
    names = ("datasets/news/train.json", "datasets/news-zh/train.json")
    sets = assemble(wanted(ROOT, train=names, eval="datasets/news/eval.json", weights=(3.0, 1.0)))
    assert Counter(each.source for each in sets.train) == {names[0]: 300, names[1]: 100}
    assert len({(each.source, each.row) for each in sets.train}) == 400


def test_leaked_rows_stop_unless_accepted(tmp_path: Path) -> None:
    for part in ("train", "eval"):
        (tmp_path / f"{part}.json").write_text((NEWS / "eval.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="leakage_exact: 100 of 100"):
        assemble(wanted(tmp_path))
    sets = assemble(wanted(tmp_path, accept=("leakage_exact",)))
    assert [finding.kind for finding in sets.findings] == ["leakage_exact"]
    assert sets.findings[0].rows[0] == ("eval.json", 1)


def test_accepted_bad_rows_are_left_out(tmp_path: Path) -> None:
    every = json.loads((NEWS / "train.json").read_text(encoding="utf-8"))
    every[7]["conversations"][1]["value"] = None
    (tmp_path / "train.json").write_text(json.dumps(every), encoding="utf-8")
    with pytest.raises(InputError, match=r"train\.json, row 8"):
        assemble(wanted(tmp_path, eval=(), eval_fraction=0.2))
    sets = assemble(wanted(tmp_path, eval=(), eval_fraction=0.2, accept=("empty_row",)))
    assert (len(sets.train) + len(sets.eval), sets.read) == (299, 300)


# ---- sets of the hub

NAMES = [
    ("hf:org/name:train", ("org/name", None, None, "train")),
    ("hf:org/name@v1.0/zh:test", ("org/name", "v1.0", "zh", "test")),
]


@pytest.mark.parametrize(("name", "parts"), NAMES)
def test_references_to_the_hub(name: str, parts: tuple[str | None, ...]) -> None:
    found = hub.parse(name)
    assert (found.repository, found.revision, found.config, found.split) == parts


def test_a_reference_that_cannot_be_read() -> None:
    with pytest.raises(InputError, match="cannot read 'hf:name'"):
        hub.parse("hf:name")


LISTED = [
    "README.md",
    "data/train-00000-of-00001.parquet",
    "data/test-0.parquet",
    "zh/train.jsonl",
    "training_notes.csv",
]


def test_files_of_a_split() -> None:
    assert hub.files_of_split(LISTED, None, "train") == ["data/train-00000-of-00001.parquet"]
    assert hub.files_of_split(LISTED, "zh", "train") == ["zh/train.jsonl"]
    assert hub.files_of_split(LISTED, None, "validation") == []


ULTRACHAT = [f"data/train_{part}-00000-of-00001-a09b74b3ef9c3b56.parquet" for part in ("sft", "gen")]
SPLITS = [
    (ULTRACHAT, "train_sft", ULTRACHAT[:1]),
    (ULTRACHAT, "train", []),
    (["default/train_sft/0000.parquet", "default/train_gen/0000.parquet"], "train", []),
    (["default/train_sft/0000.parquet", "default/test/0000.parquet"], "train_sft", ["default/train_sft/0000.parquet"]),
    (["en/train.v1.json", "en/test.v1.json"], "train.v1", ["en/train.v1.json"]),
    (["x/dev-test.csv", "x/test.csv"], "dev-test", ["x/dev-test.csv"]),
    (["my_train_0.json", "my_train_1.json", "notes.md"], "train", ["my_train_0.json", "my_train_1.json"]),
    (["train/README.md", "train.csv"], "train", ["train.csv"]),
]  # fmt: skip


@pytest.mark.parametrize(("listed", "split", "files"), SPLITS)
def test_a_split_is_told_from_others_that_begin_alike(listed: list[str], split: str, files: list[str]) -> None:
    assert hub.files_of_split(listed, None, split) == files


def test_a_hub_set_is_fetched_once_and_read_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    downloads: list[str] = []

    def download(repository: str, file: str, **options: Any) -> str:
        downloads.append(f"{repository}/{file}")
        return str(NEWS / "train.json")

    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: ["data/train.json", "data/test.json"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    name = "hf:org/news:train"
    with pytest.raises(MissingError, match="not on this machine"):
        hub.local_files(name, tmp_path)
    assert hub.fetch(name) == hub.fetch(name) == hub.local_files(name, tmp_path)
    assert downloads == ["org/news/data/train.json"]
    sets = assemble(wanted(NEWS, train=(name,)))
    assert {each.source for each in sets.train} == {name}


CONFIGS = [
    (["en/train.jsonl", "zh/train.jsonl", "zh/test.jsonl"], "train", ["en", "zh"]),
    (["default/train/0000.parquet", "default/train/0001.parquet"], "train", []),
    (["en/train/0000.parquet", "zh/train/0000.parquet"], "train", ["en", "zh"]),
    (["data/2020/train.csv", "data/2021/train.csv"], "train", []),
    (["en/train.jsonl", "zh/test.jsonl"], "train", []),
    (["news/v2/train-0.csv", "news/v2/train-1.csv"], "train", []),
    (["v2/en/train.csv", "v2/zh/train.csv"], "train", ["en", "zh"]),
]


@pytest.mark.parametrize(("listed", "split", "configs"), CONFIGS)
def test_configs_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str], split: str, configs: list[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: listed)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(NEWS / "train.json"))
    if not configs:
        assert hub.fetch(f"hf:org/news:{split}")
        return
    with pytest.raises(InputError, match=f"several configs: {', '.join(configs)}") as refused:
        hub.fetch(f"hf:org/news:{split}")
    assert f"hf:org/news/{configs[0]}:{split}" in refused.value.hint
    assert len(hub.fetch(f"hf:org/news/{configs[1]}:{split}")) == 1


CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/a-*.csv}
  - {split: validation, path: [dev.csv, ./more/dev.csv]}
- config_name: all
  data_dir: whole
  data_files: "*.jsonl"
- config_name: byname
  data_dir: named
---
# 新闻
"""
OF_CARD = ["README.md", "data/a-0.csv", "data/a-1.csv", "data/b.csv", "dev.csv", "more/dev.csv", "test.csv",
           "whole/x.jsonl", "x.jsonl", "named/train.csv"]  # fmt: skip
CARDS = [
    (CARD, "hf:o/n:train", ["data/a-0.csv", "data/a-1.csv"]),
    (CARD, "hf:o/n:validation", ["dev.csv", "more/dev.csv"]),
    (CARD, "hf:o/n/all:train", ["whole/x.jsonl"]),
    (CARD, "hf:o/n/byname:train", ["named/train.csv"]),
    (CARD, "hf:o/n:test", "its card names train, validation"),
    (CARD.replace("default", "en"), "hf:o/n:train", "hf:o/n/en:train"),
    (CARD.replace("config_name: all", "config_name: all\n  default: true").replace("name: default", "name: en"),
     "hf:o/n:train", ["whole/x.jsonl"]),
    (CARD.replace("data/a-*.csv", "'**/dev.csv'"), "hf:o/n:train", ["dev.csv", "more/dev.csv"]),
    ("---\nconfigs: [en, zh]\n---\n", "hf:o/n:test", ["test.csv"]),
    ("---\nconfigs: [\n---\n", "hf:o/n:test", ["test.csv"]),
    ("---\n- 1\n---\n", "hf:o/n:test", ["test.csv"]),
    ("no card", "hf:o/n:test", ["test.csv"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "files"), CARDS)
def test_a_card_says_which_files_are_a_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, files: list[str] | str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    downloads: list[str] = []

    def download(repository: str, file: str, **options: Any) -> str:
        downloads.append(file)
        return str(tmp_path / "README.md" if file == "README.md" else NEWS / "train.json")

    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: OF_CARD)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    if isinstance(files, str):
        with pytest.raises(InputError) as refused:
            hub.fetch(name)
        assert files in refused.value.hint and downloads == ["README.md"]
        return
    assert len(hub.fetch(name)) == len(files) and downloads == ["README.md", *files]


def test_what_the_hub_has_converted_is_taken_where_the_card_names_no_file_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "README.md").write_text(CARD.replace("a-*.csv", "train.zip"), encoding="utf-8")
    downloads: list[str] = []

    def download(repository: str, file: str, revision: str | None, **options: Any) -> str:
        downloads.append(f"{revision}:{file}")
        return str(tmp_path / "README.md" if file == "README.md" else NEWS / "train.json")

    def listed(*_: Any, revision: str | None, **__: Any) -> list[str]:
        converted = [f"{config}/train/0000.parquet" for config in ("all", "default")]
        return converted if revision else ["README.md", "data/train.zip"]

    monkeypatch.setattr("huggingface_hub.list_repo_files", listed)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert hub.fetch("hf:o/n:train")
    assert downloads == ["None:README.md", "refs/convert/parquet:default/train/0000.parquet"]


def test_a_hub_set_that_cannot_be_had_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: 1 / 0)
    with pytest.raises(MissingError, match="cannot download hf:org/news:train"):
        hub.fetch("hf:org/news:train")
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *_, **__: ["data/test.json"])
    with pytest.raises(InputError, match="no files of split 'train'"):
        hub.fetch("hf:org/news:train")
    assert not list((tmp_path / "cache").rglob("*.json"))


# ---- counting


def test_stats_count_labels_lengths_and_scripts() -> None:
    found = stats_of_file(NEWS_ZH / "train.json")
    assert found.labels == dict.fromkeys(found.labels, 50)
    assert sum(count for _, _, count in found.lengths) == found.rows == 300
    assert found.lengths[-1][1] == found.longest
    assert found.scripts == {"chinese": 300}


def test_the_picture_is_well_formed_loads_nothing_and_holds_the_labels(tmp_path: Path) -> None:
    labels = ["体育 & <b>"] * 30 + ["World"] * 20
    lines = [json.dumps({"prompt": f"question {n}", "response": label}) for n, label in enumerate(labels)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert run("stats", tmp_path / "a.jsonl", "--picture", tmp_path / "a.svg").exit_code == 0
    picture = (tmp_path / "a.svg").read_text(encoding="utf-8")
    shown = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "体育 & <b>" in shown and "a.jsonl" in shown and "textLength" not in picture
    assert "//" not in picture.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")


# ---- the commands


def test_import_then_check_then_stats(tmp_path: Path) -> None:
    path = table(tmp_path / "news.csv")
    out = tmp_path / "set"
    imported = run("import", path, "--prompt", "新闻分类：{标题}", "--label", "类别", "--out", out)
    assert imported.exit_code == 0
    assert f"  train: {out}/train.json" in imported.stdout
    checked = run("check", out / "train.json", "--eval", out / "eval.json", "--json")
    assert (checked.exit_code, json.loads(checked.stdout)) == (0, {"findings": []})
    pictured = run("stats", out / "train.json", "--picture", tmp_path / "a.svg")
    assert "228 rows" in pictured.stdout and (tmp_path / "a.svg").is_file()


def test_import_says_which_columns_it_took_and_shows_a_row(tmp_path: Path) -> None:
    path, out = table(tmp_path / "news.csv"), tmp_path / "set"
    said = run("import", path, "--prompt", "新闻分类：{标题}", "--label", "类别", "--out", out).stderr
    assert "columns: prompt from '新闻分类：{标题}', response from '类别'" in said
    first = json.loads((out / "train.json").read_text(encoding="utf-8"))[0]["conversations"]
    assert f"the first row:\n  user: {first[0]['value']!r}\n  assistant: {first[1]['value']!r}\n" in said
    assert "--write-spec" in said
    found = run("import", path, "--out", tmp_path / "guessed", "--json")
    assert json.loads(found.stdout)["columns"] == {"prompt": "标题", "response": "类别"}


def test_import_writes_a_spec_that_is_good_and_keeps_what_one_says(tmp_path: Path) -> None:
    path, spec = table(tmp_path / "新闻 2026.csv"), tmp_path / "spec.yaml"
    arguments = ("import", path, "--out", tmp_path / "sets/新闻 2026", "--write-spec", spec)
    assert "written: " in run(*arguments).stderr
    project = load_project(spec)
    assert (project.spec.name, project.spec.data.train) == ("2026", "sets/新闻 2026/train.json")
    assert (project.spec.evaluate.task, project.spec.evaluate.max_new_tokens) == ("classification", 16)

    written = (
        "name: mine  # my own\ndata:\n  train: old.json\n  eval_fraction: 0.3  # a third\ntrain:\n  seed: 1  # one\n"
    )
    spec.write_text(written, encoding="utf-8")
    assert "changed: " in run(*arguments, "--overwrite").stderr
    text = spec.read_text(encoding="utf-8")
    assert "name: mine  # my own" in text and "seed: 1  # one" in text and "eval_fraction" not in text
    assert load_project(spec).spec.data.eval == "sets/新闻 2026/eval.json"


ROWS_OF: dict[str, dict[str, Any]] = {
    "sft": {"prompt": "{}", "response": "a"},
    "kto": {"prompt": "{}", "completion": "a", "label": True},
    "dpo": {"prompt": "{}", "chosen": "a", "rejected": "b"},
    "rm": {"prompt": "{}", "chosen": "a", "rejected": "b"},
    "pt": {"text": "{}"},
}


@pytest.mark.parametrize("kind", ROWS_OF)
def test_import_writes_a_spec_for_the_training_that_the_rows_are_for(tmp_path: Path, kind: str) -> None:
    texts = [each.prompt for each in rows()]
    made = [{key: text if value == "{}" else value for key, value in ROWS_OF[kind].items()} for text in texts]
    (tmp_path / "rows.json").write_text(json.dumps(made), encoding="utf-8")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: mine\ndata: {train: [a, b], weights: [1, 2], columns: {prompt: title}}\ntrain: {stage: dpo}\n"
    )
    arguments = ("import", tmp_path / "rows.json", "--kind", kind, "--out", tmp_path / "set")
    said = run(*arguments, "--write-spec", spec)
    assert said.exit_code == 0, said.exception
    project = load_project(spec)
    assert project.spec.training["stage"] == kind
    sets = assemble(Wanted.of_spec(project.spec, project.root))
    assert len(sets.train) + len(sets.eval) == 300
    snippet = run(*arguments, "--overwrite").stdout
    assert (f"train:\n  stage: {kind}\n" in snippet) == (kind != "sft")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a spec"),
        ("- a\n", "is not a spec"),
        ("name: a\nname: b\n", "spec.yaml:2: name: given twice"),
        ("name: [a\n", "not valid YAML"),
    ],
)
def test_a_spec_that_is_no_yaml_is_refused_before_anything_is_written(tmp_path: Path, text: str, message: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text, encoding="utf-8")
    result = run("import", table(tmp_path / "news.csv"), "--out", tmp_path / "set", "--write-spec", spec)
    assert isinstance(result.exception, InputError) and message in result.exception.message
    assert not (tmp_path / "set").exists() and spec.read_text(encoding="utf-8") == text


def test_check_ends_with_an_error_and_still_prints(tmp_path: Path) -> None:
    result = run("check", NEWS / "eval.json", "--eval", NEWS / "eval.json", "--json")
    assert isinstance(result.exception, InputError)
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["kind"], finding["rows"][0]["row"]) == ("leakage_exact", 1)


def test_check_reads_the_spec(builtin_model: Path) -> None:
    result = run("check", ROOT / "spec.yaml", "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["findings"]) == (0, [])
    assert sum(answer["tokens"]["bins"]) == 400


def test_clean_and_split(tmp_path: Path) -> None:
    cleaned = run("clean", NEWS / "train.json", "--eval", NEWS / "eval.json", "--out", tmp_path / "a", "--json")
    assert json.loads(cleaned.stdout) == {"train": 300, "eval": 100, "changes": []}
    halves = run("split", NEWS / "train.json", "--eval-fraction", "0.2", "--out", tmp_path / "b", "--json")
    assert [json.loads(halves.stdout)[part] for part in ("train", "eval")] == [240, 60]


def test_prompt_and_label_go_together(tmp_path: Path) -> None:
    result = run("import", table(tmp_path / "news.csv"), "--prompt", "{标题}")
    assert result.exit_code == 2 and "go together" in result.stderr
