"""Files of every kind → conversations, or the row and the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import openpyxl
import openpyxl.chart
import pyarrow
import pyarrow.parquet
import pytest

from orchestrator.data.conversation import Conversation, Message, write_rows
from orchestrator.data.encoding import detect_encoding
from orchestrator.data.reading import load, read, require
from orchestrator.lib.errors import InputError

TABLE = "标题,类别\n北京申奥成功，举国欢庆,体育\n央行下调存款准备金率,财经\n"
CHINESE = [("北京申奥成功，举国欢庆", "体育"), ("央行下调存款准备金率", "财经")]


def pairs(path: Path, **options: Any) -> list[tuple[str, str]]:
    loaded = load(path, **options)
    assert loaded.problems == ()
    return [(row.prompt, row.answer) for row in loaded.conversations]


def write(folder: Path, name: str, value: Any, encoding: str = "utf-8") -> Path:
    path = folder / name
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding=encoding)
    return path


# ---- encodings and containers

ENCODINGS = [
    ("utf-8", "utf-8-sig"),
    ("utf-8-sig", "utf-8-sig"),
    ("gbk", "gb18030"),
    ("gb18030", "gb18030"),
    ("utf-16", "utf-16"),
    ("utf-16-le", "utf-16-le"),
    ("utf-16-be", "utf-16-be"),
]


@pytest.mark.parametrize(("encoding", "detected"), ENCODINGS)
def test_encodings_are_detected(tmp_path: Path, encoding: str, detected: str) -> None:
    path = write(tmp_path, "rows.csv", TABLE, encoding)
    assert (detect_encoding(path), pairs(path)) == (detected, CHINESE)


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "shift_jis"])
def test_no_other_encoding_is_guessed(tmp_path: Path, encoding: str) -> None:
    texts = {"cp1252": "un café très agréable,opinion", "cp1251": "новости дня,мир", "shift_jis": "日本のニュース,国際"}
    path = write(tmp_path, "rows.csv", f"prompt,answer\n{texts[encoding]}\n", encoding)
    with pytest.raises(InputError, match="neither UTF-8 nor GBK"):
        load(path)


@pytest.mark.parametrize("content", [b"\xff\xfea\x00\xd8", b"a\x00b\x00\x00\xd8c\x00"])
def test_damaged_utf_16_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match="neither UTF-8 nor GBK nor UTF-16"):
        load(tmp_path / "a.csv")


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "\t")])
def test_separators(tmp_path: Path, name: str, separator: str) -> None:
    path = write(tmp_path, name, TABLE.replace(",", separator))
    assert pairs(path) == CHINESE


def test_a_quoted_cell_may_hold_separators_quotes_and_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'question,answer\n"a, ""b""\nc",yes\n\nd,no\n')
    assert pairs(path) == [('a, "b"\nc', "yes"), ("d", "no")]


def test_words_that_pandas_takes_for_nothing_stay_words(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "question,answer\nx,NA\ny,None\nz,null\n")
    assert [answer for _, answer in pairs(path)] == ["NA", "None", "null"]


def test_a_row_with_the_wrong_number_of_cells_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "question,answer\nx,1\ny,2,3\nz,4\n")
    loaded = load(path)
    assert [(p.kind, p.row) for p in loaded.problems] == [("column_count", 2)]
    assert [row.row for row in loaded.conversations] == [1, 3]


def test_a_column_without_a_name_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ",title,label\n0,a,b\n1,c,d\n")  # as pandas writes it
    assert pairs(path) == [("a", "b"), ("c", "d")]
    assert pairs(write(tmp_path, "a.json", [{"": "0", "title": "a", "label": "b"}])) == [("a", "b")]


def test_a_line_with_wrong_quotes_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'title,label\n"Titanic" sinks,Film\n"a ""b""",c\nthe 5" floppy,Tech\n')
    loaded = load(path)
    assert [(row.prompt, row.row) for row in loaded.conversations] == [('a "b"', 2), ('the 5" floppy', 3)]
    (problem,) = loaded.problems
    assert (problem.kind, problem.row) == ("bad_quotes", 1) and "line 2" in problem.message


MISQUOTED = [
    ('title,label\na,b\n"Titanic,Film\nc,d\n', "lines 3 to 4"),
    ('title,label\na,b\n"Titanic,Film\n"c",d\n', "lines 3 to 4"),
    ('title,label\n"a "b" c\nd",e\n', "line 2"),
    ('"title"s,label\na,b\n', "line 1"),
]


@pytest.mark.parametrize(("text", "where"), MISQUOTED)
def test_quotes_that_leave_open_where_a_row_ends_are_refused(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(InputError, match=f"the quotes in {where} do not match"):
        load(write(tmp_path, "a.csv", text))


def test_parquet_and_excel(tmp_path: Path) -> None:
    table = pyarrow.table({"title": [title for title, _ in CHINESE], "category": [label for _, label in CHINESE]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    book = openpyxl.Workbook()
    for cells in [("标题", "类别"), *CHINESE, (None, None)]:
        book.active.append(cells)
    book.save(tmp_path / "a.xlsx")
    assert pairs(tmp_path / "a.parquet") == pairs(tmp_path / "a.xlsx") == CHINESE


def chart_in(book: openpyxl.Workbook) -> Any:
    sheet = book.create_chartsheet("chart", 0)
    sheet.add_chart(openpyxl.chart.BarChart())
    return sheet


def test_excel_means_the_first_sheet_whichever_was_looked_at_last(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in [("title", "label"), ("a", "b")]:
        book.active.append(cells)
    book.create_sheet("notes").append(["something else"])
    book.active = chart_in(book)
    book.save(tmp_path / "a.xlsx")
    assert pairs(tmp_path / "a.xlsx") == [("a", "b")]


def test_excel_is_read_beyond_the_size_that_it_tells(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in [("title", "label", "note"), ("a", "b"), ("c", "d")]:
        book.active.append(cells)
    book.save(tmp_path / "whole.xlsx")
    with ZipFile(tmp_path / "whole.xlsx") as whole, ZipFile(tmp_path / "a.xlsx", "w") as told:
        for name in whole.namelist():
            told.writestr(name, whole.read(name).replace(b'<dimension ref="A1:C3"', b'<dimension ref="A1"'))
    assert pairs(tmp_path / "a.xlsx") == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("part", "content"),
    [("xl/worksheets/sheet1.xml", b"<worksheet>"), ("xl/styles.xml", b"<x/>"), ("xl/workbook.xml", b"")],
)
def test_a_damaged_book_is_refused(tmp_path: Path, part: str, content: bytes) -> None:
    openpyxl.Workbook().save(tmp_path / "whole.xlsx")
    with ZipFile(tmp_path / "whole.xlsx") as whole, ZipFile(tmp_path / "a.xlsx", "w") as damaged:
        for name in whole.namelist():
            damaged.writestr(name, content if name == part else whole.read(name))
    with pytest.raises(InputError, match=r"not an Excel workbook|no column names"):
        load(tmp_path / "a.xlsx")


def test_a_book_of_charts_has_no_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    chart_in(book)
    del book["Sheet"]
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="charts only"):
        load(tmp_path / "a.xlsx")


def test_numbers_of_a_spreadsheet_become_text(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in [("question", "answer"), ("three", 3), ("yes", True), ("half", 0.5)]:
        book.active.append(cells)
    book.save(tmp_path / "a.xlsx")
    assert [answer for _, answer in pairs(tmp_path / "a.xlsx")] == ["3", "true", "0.5"]


def test_json_lines_in_a_json_file_and_lists_in_jsonl(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]
    lines = write(tmp_path, "a.json", "\n".join(map(json.dumps, rows)))
    listed = write(tmp_path, "b.jsonl", rows)
    assert pairs(lines) == pairs(listed) == [("a", "b"), ("c", "d")]


def test_lists_that_were_joined_are_all_read(tmp_path: Path) -> None:
    lists = ([{"prompt": "a", "response": "b"}], [], [{"prompt": "c", "response": "d"}])
    path = write(tmp_path, "a.json", "\n".join(map(json.dumps, lists)) + "\n")
    assert pairs(path) == [("a", "b"), ("c", "d")]


def test_half_a_character_is_named(tmp_path: Path) -> None:
    lines = [{"prompt": "a", "response": "b"}, {"prompt": "cut \ud83d", "response": "b"}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    (problem,) = load(path).problems
    assert (problem.kind, problem.row) == ("not_text", 2) and r"\ud83d" in problem.message
    path.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c \udc00"}))
    assert [problem.kind for problem in load(path, "dpo").problems] == ["not_text"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"prompt": "a", "response": "b"}\n\n{"prompt": \n[1]\n')
    assert [(p.kind, p.row) for p in load(path).problems] == [("bad_json", 2), ("not_an_object", 3)]


BROKEN = [
    ('[{"a": 1}, {"b" 2}]', "row 2 is not JSON"),
    ('[{"prompt": "a", "response": "b"}, ', "the list ends without"),
    ('[{"prompt": "a", "response": "b"}]\n{"prompt": "c"}', "no list follows the ']' after row 1"),
    ("title,title\n1,2\n", "two columns are called 'title'"),
    (",\n1,2\n", "no column names"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "a.json" if text.startswith("[") else "a.csv", text)
    with pytest.raises(InputError, match=message):
        load(path)


@pytest.mark.parametrize(("name", "message"), [("none.json", "no data file"), ("a.txt", "cannot read files")])
def test_a_file_that_is_none(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, "a.txt", "x")
    with pytest.raises(InputError, match=message):
        load(tmp_path / name)


def test_files_named_like_books_and_tables_that_are_none(tmp_path: Path) -> None:
    for name in ("a.xlsx", "a.parquet"):
        with pytest.raises(InputError, match="not a"):
            load(write(tmp_path, name, "hello"))


# ---- formats

TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
SAID = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
FORMATS: list[tuple[Any, Mapping[str, Any]]] = [
    ("sft", {"conversations": TURNS}),
    ("sft", {"messages": SAID}),
    ("sft", {"conversations": SAID}),
    ("sft", {"instruction": "q", "input": "", "output": "a"}),
    ("sft", {"question": "q", "answer": "a"}),
    ("sft", {"问题": "q", "答案": "a"}),
    ("sft", {"id": 1, "text": "q", "label": "a"}),
    ("sft", {"input": "q", "output": "a"}),
    ("dpo", {"prompt": "q", "chosen": "a", "rejected": "b"}),
    ("dpo", {"conversations": TURNS[:1], "chosen": TURNS[1], "rejected": {"from": "gpt", "value": "b"}}),
    ("rm", {"chosen": SAID, "rejected": [SAID[0], {"role": "assistant", "content": "b"}]}),
    ("kto", {"prompt": "q", "completion": "a", "label": True}),
    ("kto", {"messages": SAID, "kto_tag": "true"}),
]


@pytest.mark.parametrize(("kind", "row"), FORMATS)
def test_formats_are_recognised_and_mean_the_same(tmp_path: Path, kind: Any, row: Any) -> None:
    (conversation,) = load(write(tmp_path, "a.json", [row]), kind).conversations
    assert (conversation.prompt, conversation.answer) == ("q", "a")
    assert conversation.rejected == ("b" if kind in ("dpo", "rm") else "")
    assert conversation.desirable == (True if kind == "kto" else None)


def test_alpaca_with_everything(tmp_path: Path) -> None:
    row = {"instruction": "i", "input": "j", "output": "o", "system": "s", "history": [["a", "b"]]}
    (conversation,) = load(write(tmp_path, "a.json", [row])).conversations
    said = [(m.role, m.content) for m in conversation.messages]
    assert said == [("user", "a"), ("assistant", "b"), ("user", "i\nj"), ("assistant", "o")]
    assert conversation.system == "s"


def test_openai_tools(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "上海"}'}}
    row = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "上海天气"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "晴"},
            {"role": "assistant", "content": "晴天"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    }
    (conversation,) = load(write(tmp_path, "a.jsonl", row)).conversations
    assert [m.role for m in conversation.messages] == ["user", "function_call", "observation", "assistant"]
    assert json.loads(conversation.messages[1].content) == [{"name": "weather", "arguments": {"city": "上海"}}]
    assert (conversation.system, json.loads(conversation.tools)) == ("s", row["tools"])


def test_lists_in_cells(tmp_path: Path) -> None:
    cell = json.dumps(TURNS).replace('"', '""')
    assert pairs(write(tmp_path, "a.csv", f'id,conversations\n1,"{cell}"\n')) == [("q", "a")]


def test_columns_name_a_files_own(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "headline,kind,note\n 降息 ,财经,x\n,体育,y\n")
    columns = {"prompt": "新闻分类：{headline}", "response": "kind"}
    loaded = load(path, columns=columns)
    assert [(row.prompt, row.answer) for row in loaded.conversations] == [("新闻分类：降息", "财经")]
    assert [(p.kind, p.row) for p in loaded.problems] == [("empty_row", 2)]


COLUMN_ERRORS = [
    ({"prompt": "titel"}, "no column 'titel'"),
    ({"prompt": "x {titel}", "response": "label"}, "no column 'titel'"),
    ({"question": "title"}, "unknown key 'question'"),
    ({}, "no column looks like the response"),
]


@pytest.mark.parametrize(("columns", "message"), COLUMN_ERRORS)
def test_wrong_columns_are_named(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    path = write(tmp_path, "a.csv", "title,sort\nx,y\n")
    with pytest.raises(InputError, match=message):
        load(path, columns=columns)


def test_a_system_text_for_rows_without_one(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "b", "system": "own"}]
    loaded = load(write(tmp_path, "a.json", rows), system="given")
    assert [row.system for row in loaded.conversations] == ["given", "own"]


BAD_PAIRS = [
    ("dpo", {"prompt": "q", "chosen": "a", "rejected": None}, "missing_pair"),
    ("dpo", {"prompt": "q", "chosen": "a", "rejected": "a"}, "same_pair"),
    ("dpo", {"conversations": TURNS, "chosen": TURNS[1], "rejected": TURNS[1] | {"value": "b"}}, "odd_turns"),
    ("kto", {"prompt": "q", "completion": "a", "label": None}, "missing_tag"),
    ("pt", {"text": " "}, "empty_row"),
]


@pytest.mark.parametrize(("kind", "row", "problem"), BAD_PAIRS)
def test_bad_rows_of_other_kinds(tmp_path: Path, kind: Any, row: Any, problem: str) -> None:
    (found,) = load(write(tmp_path, "a.json", [row]), kind).problems
    assert found.kind == problem


# ---- all or nothing


def test_require_lists_the_rows_in_one_error(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "response": None if n % 2 else "x"} for n in range(40)]
    loaded = load(write(tmp_path, "a.json", rows))
    with pytest.raises(InputError) as caught:
        require(loaded)
    lines = caught.value.message.splitlines()
    assert lines[0] == "20 of 40 rows cannot be used:"
    assert lines[1].endswith("a.json, row 2: response is empty (empty_row)")
    assert lines[-1] == "  … and 12 more"
    assert "accept: [empty_row]" in caught.value.hint
    assert len(require(loaded, accept=["empty_row"])) == 20


def test_a_tiny_set_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", [{"prompt": "a", "response": "b"}] * 9)
    with pytest.raises(InputError, match="9 rows, at least 10"):
        require(load(path))
    assert len(require(load(path), at_least=1)) == 9
    with pytest.raises(InputError, match="0 rows"):
        require(load(write(tmp_path, "b.json", [])))


def test_jsonl_is_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"prompt": "a", "response": "b"}\n' * 60 + "not JSON at all\n")
    rows = read(path)
    assert isinstance(next(rows), Conversation)  # the damaged end has not been looked at yet


# ---- writing


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    conversations = [
        Conversation((Message("user", "问"), Message("assistant", "答")), source="a", row=1),
        Conversation((Message("user", "q"), Message("assistant", "a")), system="s", source="a", row=2),
    ]
    write_rows(tmp_path / "a.json", conversations)
    back = load(tmp_path / "a.json").conversations
    assert [(row.messages, row.system) for row in back] == [(row.messages, row.system) for row in conversations]
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert {frozenset(row) for row in written} == {frozenset(("conversations", "system", "tools"))}
