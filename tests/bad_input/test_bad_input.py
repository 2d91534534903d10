"""What cannot run is refused with exit code 2 and a short message that names the place; the disk stays as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import cli
from orchestrator.data import rows
from tests.bad_input import data, specs
from tests.bad_input.specs import GOOD, Broken

SPECS, DATA = list(specs.corpus()), list(data.corpus())
LINES = 10
WITHOUT_LINE = {"not YAML: 100,000 keys", "not YAML: a line of 900,000 characters", "path: no data file"}
"""A spec of that size is not read; the data file is what is wrong."""
Answer = tuple[int, str]
Tool = Callable[..., Answer]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder: two data files, a folder, a pipe and a link that leads to itself."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("train.json", "eval.json"):
        (folder / name).write_text("[]", encoding="utf-8")
    (folder / "folder").mkdir()
    (folder / "loop.json").symlink_to("loop.json")
    os.mkfifo(folder / "pipe")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture
def tool(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tool:
    """Call the command line in this process; returns exit code and standard error."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(project.parent / "cache"))

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr("sys.argv", ["orchestrator", *arguments])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capfd.readouterr()
        return int(end.value.code or 0), printed.err

    return call


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Each path below a folder with its size and time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_size if path.is_file() else 0, status.st_mtime_ns if path.is_file() else 0)
    return found


def refused(tool: Tool, project: Path, *arguments: str) -> str:
    """What the tool said when it refused; it changed nothing."""
    before = everything(project)
    code, said = tool(*arguments)
    assert code == 2, said
    assert re.match("\n?(error|Usage): ", said) and "Traceback" not in said
    assert said.strip().count("\n") < LINES
    assert len(said) < 4000
    assert everything(project) == before
    return said


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len({broken.content for broken in SPECS}) == len(SPECS)
    assert len(SPECS) + len(DATA) >= 200


@pytest.mark.parametrize("broken", SPECS, ids=[broken.name[:60] for broken in SPECS])
@pytest.mark.filterwarnings("error")
def test_a_broken_spec(tool: Tool, project: Path, broken: Broken) -> None:
    (project / "spec.yaml").write_bytes(broken.content)
    said = refused(tool, project, "check")
    assert "spec.yaml" in said
    assert broken.names in said
    assert re.search(r"spec\.yaml:\d+: ", said) or broken.name in WITHOUT_LINE
    assert "lanted" not in said  # no secret is quoted
    assert not (project / "hacked").exists()


@pytest.mark.parametrize(("name", "content"), DATA, ids=[name for name, _ in DATA])
def test_a_broken_data_file(tool: Tool, project: Path, name: str, content: bytes) -> None:
    (project / name).write_bytes(content)
    said = refused(tool, project, "data", "check", name)
    assert name in said or "few_rows: only" in said  # of the file that was named
    if name.startswith("row-7-"):
        assert "row 7" in said
    assert not (project / "hacked").exists()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "pipe", "loop.json", "folder", "n" * 300, "没有.yaml"])
def test_a_spec_that_is_no_file(tool: Tool, project: Path, path: str) -> None:
    refused(tool, project, "check", path)


@pytest.mark.parametrize(
    "path", ["/dev/zero", "pipe", "loop.json", "folder", f"{'长' * 300}.json", "没有.json", "../..", ""]
)
def test_data_that_is_no_file(tool: Tool, project: Path, path: str) -> None:
    refused(tool, project, "data", "check", path)


def test_a_workbook_that_unpacks_to_too_much_is_not_read(
    tool: Tool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_BOOK", 1 << 20)
    with ZipFile(project / "bomb.xlsx", "w", ZIP_DEFLATED) as book:
        for number in range(2):
            book.writestr(f"xl/worksheets/sheet{number}.xml", bytes(1 << 19) + b"<sheet/>")
    assert "unpacks to 1,048,592 bytes" in refused(tool, project, "data", "check", "bomb.xlsx")
    (project / "bomb.xlsx").unlink()


NAMES = [
    "规格 one.yaml",
    "it's.yaml",
    'a"b.yaml',
    "🙂.yaml",
    "--force.yaml",
    "$(touch hacked).yaml",
    f"{'n' * 250}.yaml",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_may_be_called_anything(tool: Tool, project: Path, name: str) -> None:
    (project / name).write_text(GOOD + "trian: {}\n", encoding="utf-8")
    assert f"{name}:8: trian: unknown key" in refused(tool, project, "check", "--", name).replace("\n", "")
    (project / name).unlink()
    assert not (project / "hacked").exists()


def test_a_spec_of_100_megabytes_is_not_read(tool: Tool, project: Path) -> None:
    with (project / "huge.yaml").open("wb") as file:
        file.truncate(100_000_000)
    assert "larger than" in refused(tool, project, "check", "huge.yaml")
    (project / "huge.yaml").unlink()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, len(GOOD)), noise=st.binary(max_size=40))
def test_a_spec_with_noise_in_it(tool: Tool, project: Path, cut: int, noise: bytes) -> None:
    content = GOOD.encode()[:cut] + noise + GOOD.encode()[cut:]
    (project / "spec.yaml").write_bytes(content)
    code, said = tool_or_none(tool)
    assert code in (0, 2), said
    assert "Traceback" not in said and said.count("\n") <= LINES


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 2000), noise=st.binary(max_size=40), suffix=st.sampled_from(["json", "jsonl", "csv"]))
def test_a_data_file_with_noise_in_it(tool: Tool, project: Path, cut: int, noise: bytes, suffix: str) -> None:
    whole = json.dumps(data.ROWS, ensure_ascii=False).encode()
    (project / f"noise.{suffix}").write_bytes(whole[:cut] + noise + whole[cut:])
    code, said = tool("data", "check", f"noise.{suffix}")
    assert code in (0, 2), said
    assert "Traceback" not in said and said.count("\n") <= LINES


def tool_or_none(tool: Tool) -> Answer:
    return tool("check", "--json")
