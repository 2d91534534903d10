"""What people read in their language: whole in Chinese where a catalogue is, whole in English elsewhere."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import click
import pytest

from orchestrator.cli import cli
from orchestrator.cli.help import cells
from orchestrator.lib import language as languages
from orchestrator.lib import wording
from orchestrator.lib.files import read_json
from orchestrator.lib.language import localised
from scripts import messages
from tests.conftest import run_tool

CHINESE = {"LANG": "zh_CN.UTF-8"}
FOLDER = languages.CATALOGUES["zh"]
ALL = messages.catalogues()
OTHERS = ("click", "composed", "earlier", "terms", "words")
"""Catalogues of what is no text of our sources: click's texts, texts that meet, those in old records, single words."""
NAMED = (
    r"`[^`]*`|'[^']*'|\[[^\]]*\]|--\w\S*|\S*[_/.:=*<>]\S*|\b[A-Z][A-Za-z]*\b|[A-Z]\S*"
    r"|(?:orchestrator|ollama|llamafactory-cli) \w+"
)
"""What stays as it is in any language: code, options, values, files and keys, names that begin with a capital."""


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "de_DE"}, "de"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LANG": "C"}, "c"),
        ({}, ""),
    ],
)
def test_the_language_is_that_of_posix(environment: dict[str, str], language: str) -> None:
    assert languages.language(environment) == language


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("Choose one of: {a}, b.", "可选：{a}, b。"),
        ("Nobody translated this.", "Nobody translated this."),
        ("error: no file 'x'", "错误：没有文件 'x'"),
        ("This run has: f16, {}. `orchestrator export` makes the others.",
         "这次运行有：f16, {}。其余的可用 `orchestrator export` 生成。"),
        # a key before, a proposal behind, and a value that is itself a text
        ("spec.yaml:3: model.template: unknown template 'foo'; LLaMA-Factory has 121, or write auto",
         "spec.yaml:3: model.template: 未知的模板 'foo'；LLaMA-Factory 有 121，或写 auto"),
        ("train.seed: expected a whole number, got the text 'a'", "train.seed: 应为一个整数，实为文本“a”"),
        ("error: 2 of 9 files of r1 are not as recorded:\na: is gone",
         "错误：运行 r1 的 9 个文件中有 2 个与记录不符：\na: 已丢失"),
        ("The tuned model answers 50.0 % (25.0–75.0) of 12 held-out rows right, better than the base model's 0.0; "
         "2 of 3 GGUFs pass the quality gate, ship gguf-q8_0 (5.2 MB).",
         "微调后的模型在 12 行留出数据中答对 50.0 % (25.0–75.0)，优于基础模型的 0.0；"
         "3 个 GGUF 中有 2 个通过质量门，请发布 gguf-q8_0（5.2 MB）。"),
        # lines, columns and marks
        ("→ template        new run\n    + by_length=true: rows of like lengths need little padding",
         "→ template        新的运行\n    + by_length=true: 长度相近的行几乎不需要补齐"),
        ("→ quantise-q4_k_m new run", "→ quantise-q4_k_m 新的运行"),
        ("✗ train            failed", "✗ train            失败"),
        ("✓ train              68.2 s  loss 1.234 ▄▃", "✓ train              68.2 秒  损失 1.234 ▄▃"),
        # what is filled in is the user's: a label that is called like one of our words stays
        ("never in the held-out rows: best, error", "从未出现在留出集中：best, error"),
        ("3 of 12 rows hold HTML remains", "12 行中有 3 行含有 HTML 残留"),
        ("cannot download hf:a/b: Connection refused and closed", "无法下载 hf:a/b：Connection refused and closed"),
    ],
)  # fmt: skip
def test_a_text_is_translated_with_what_was_filled_in(english: str, chinese: str) -> None:
    assert localised(english, CHINESE) == chinese


def test_other_languages_have_the_english_text() -> None:
    assert {localised("no runs", {"LANG": language}) for language in ("C", "de_DE.UTF-8", "en_GB", "")} == {"no runs"}


# ---- the catalogues


def test_every_text_of_the_sources_is_translated() -> None:
    lacking = messages.missing(ALL)
    assert not lacking, "no Chinese for these; add each to its catalogue:\n" + "\n".join(messages.lines(lacking))


def test_every_text_of_click_is_translated() -> None:
    assert [text for text in messages.of_click() if text not in ALL] == []


def test_every_translation_is_of_a_text_that_exists() -> None:
    texts = {message.text for message in messages.messages()}
    ours = [file for file in FOLDER.glob("*.json") if file.stem not in OTHERS]
    old = {file.name: [text for text in read_json(file) if text not in texts] for file in ours}
    assert {name: found for name, found in old.items() if found} == {}


def test_translations_fill_in_as_much_as_the_texts() -> None:
    def gaps(text: str) -> list[int]:
        found = re.findall(r"\{(\d*)\}", text)
        return sorted(int(number) if number else place for place, number in enumerate(found))

    assert [text for text, chinese in ALL.items() if chinese and gaps(text) != gaps(chinese)] == []


def test_a_translation_keeps_what_is_to_be_typed() -> None:
    typed = {text: [] if chinese is None else text.split("`")[1::2] for text, chinese in ALL.items()}
    assert [text for text, parts in typed.items() if any(part not in ALL[text] for part in parts)] == []


def test_a_text_has_one_translation() -> None:
    said: dict[str, set[str | None]] = {}
    for file in FOLDER.glob("*.json"):
        for text, chinese in read_json(file).items():
            said.setdefault(text, set()).add(chinese)
    assert {text: sorted(map(str, several)) for text, several in said.items() if len(several) > 1} == {}


# ---- pages of help


def every_page() -> dict[str, str]:
    """The path of every command and its page."""
    pages = {}

    def visit(command: click.Command, context: click.Context) -> None:
        pages[context.command_path] = command.get_help(context)
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            below = command.get_command(context, name)
            assert below is not None
            visit(below, below.context_class(below, info_name=name, parent=context))

    visit(cli, cli.context_class(cli, info_name="orchestrator"))
    return pages


def english(text: str) -> list[str]:
    """What is left of English sentences: two words beside each other that name nothing."""
    return re.findall(r"\b[a-z]+ [a-z]+\b", re.sub(NAMED, "·", text))


def test_pages_of_help_are_whole_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    pages = every_page()
    told = {path: re.sub(r"例如：.*?\n\n", "", page, flags=re.DOTALL) for path, page in pages.items()}
    assert {path: english(page) for path, page in told.items() if english(page)} == {}
    wrapped = [line for page in pages.values() for line in page.splitlines() if re.search("[\u2e80-\uffef] ", line)]
    assert max(map(cells, wrapped)) <= 80


def test_pages_of_help_are_whole_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert [
        path for path, page in every_page().items() if re.search("[\u2e80-\uffef]", page.replace("新闻分类：", ""))
    ] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "无.yaml"),
         "错误：没有文件 '无.yaml'\n提示：请指定一个 spec 文件，或用 `orchestrator init` 生成一个。\n"),
        (("chck",), "错误：没有命令 'chck'；您是想用 'check' 吗？\n"),
        (("data", "clean"), "错误：缺少参数 'FILE'。\n"),
        (("runs", "list", "--limit", "x"), "错误：'-n' / '--limit' 的值无效：'x' 不是有效的整数。\n"),
    ],
)  # fmt: skip
def test_errors_are_whole_in_chinese(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run_tool(arguments, tmp_path, {"LANG": "zh_CN.UTF-8", "LC_ALL": ""})
    assert (done.code, done.stderr.endswith(said)) == (2, True), done.stderr
    assert english(done.stderr.replace("python -m", "")) == []


def test_a_text_is_taken_for_nothing_else() -> None:
    """Each template, filled in, has the translation that stands beside it: no other one fits it better."""
    wrong = {}
    for text, chinese in ALL.items():
        if chinese is None or "{}" not in text:
            continue
        parts = text.split("{}")
        values = [f", q{place}" if place and not parts[place] else f"q{place}" for place in range(len(parts) - 1)]
        english = "".join(part + value for part, value in zip(parts, [*values, ""], strict=True))
        told, expected = localised(english, CHINESE), wording.filled(chinese, values)
        if told.replace(", ", "，") != expected.replace(", ", "，"):
            wrong[text] = told
    assert wrong == {}


def test_what_people_read_goes_through_the_catalogue() -> None:
    """The command line prints texts with `say`, which translates; click.echo is for what programs read."""
    found = []
    for file in sorted((messages.CODE / "cli").glob("*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "click.secho", "print"):
                said = [text for part in node.args for text in messages.said(part, module)]
                found += [f"{file.name}:{node.lineno}: {text}" for text in said if messages.is_prose(text, False)]
    assert found == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of `init` with a run that an earlier version made."""
    folder = tmp_path_factory.mktemp("finished")
    run_tool(("init",), folder)
    shutil.copytree(Path(__file__).parent / "earlier_runs/schema-1", folder / "runs")
    return folder


@pytest.mark.parametrize("arguments", [("plan", "-v"), ("check",), ("data", "check"), ("runs", "show")])
def test_what_a_command_says_is_whole_in_chinese(arguments: tuple[str, ...], finished: Path) -> None:
    done = run_tool(arguments, finished, {"LANG": "zh_CN.UTF-8", "LC_ALL": ""})
    said = "\n".join(line for line in f"{done.stdout}{done.stderr}".splitlines() if "python" not in line)
    assert (english(said), bool(re.search("[\u2e80-\uffef]", said))) == ([], True), said
