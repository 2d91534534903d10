"""A newcomer's first minutes: a project from nothing, help with examples, completion."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import orchestrator as package
from orchestrator.cli import COMMANDS, GROUPS, cli, project
from orchestrator.lib import process
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import read_json
from orchestrator.spec.load import load_project
from tests.conftest import run_tool

ROOT = Path(package.__file__).parent


# ---- init


def test_a_new_project_is_accepted_and_has_all_it_names(tmp_path: Path) -> None:
    files = project.create(tmp_path / "项目 one")
    names = {str(path.relative_to(tmp_path / "项目 one")) for path in files}
    assert names >= {"spec.yaml", "spec.schema.json", "Makefile", ".gitignore", "datasets/news/train.json"}
    loaded = load_project(tmp_path / "项目 one" / "spec.yaml")
    assert len(read_json(loaded.root / str(loaded.spec.data.train))) == 300


def test_the_next_command_can_be_copied(tmp_path: Path) -> None:
    assert "next: cd 'my model' && make check all" in run_tool(("init", "my model"), tmp_path).stderr


def test_its_first_line_names_the_schema_beside_it(tmp_path: Path) -> None:
    project.create(tmp_path)
    line = (tmp_path / "spec.yaml").read_text().splitlines()[0]
    assert line == "# yaml-language-server: $schema=./spec.schema.json"
    assert "learning_rate" in read_json(tmp_path / "spec.schema.json")["properties"]["train"]["properties"]


def test_nothing_is_replaced_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("mine")
    with pytest.raises(InputError, match="already has Makefile"):
        project.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
    assert (tmp_path / "Makefile").read_text() == "mine"


def test_a_file_where_the_folder_should_be_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        project.create(tmp_path / "taken")


def test_every_target_of_its_makefile_calls_a_command(tmp_path: Path) -> None:
    project.create(tmp_path)
    lines = (tmp_path / "Makefile").read_text().splitlines()
    called = {line.split()[1] for line in lines if line.startswith("\t@$(ORCHESTRATOR)")}
    assert called <= set(cli.list_commands(click.Context(cli)))
    assert called >= {"check", "train", "evaluate", "export", "run", "sweep", "report", "doctor"}


def test_its_makefile_finds_the_orchestrator_that_wrote_it(tmp_path: Path) -> None:
    project.create(tmp_path / "项目 one")
    outer = [word for name in ("MAKEFLAGS", "MAKELEVEL", "ARGS") for word in ("-u", name)]
    bare = ["env", "-C", str(tmp_path / "项目 one"), *outer, "PATH=/usr/bin:/bin", "make"]
    assert f'"{sys.executable}" -m orchestrator check spec.yaml' in process.output([*bare, "-n", "check"])
    assert process.output([*bare, "-n", "check", "TOOL=/elsewhere"]).split() == ["/elsewhere", "check", "spec.yaml"]
    with pytest.raises(process.Failed) as failed:
        process.output([*bare, "check", "PYTHON=/gone"])
    (line,) = failed.value.stderr.splitlines()  # type: ignore[union-attr]
    assert "no orchestrator at /gone or on PATH: install it, or say make check TOOL=" in line


def test_the_wheel_carries_what_init_writes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    kept = ("orchestrator", "templates", "datasets")
    for name in kept:
        shutil.copytree(ROOT.parent / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT.parent / name, source)
    build = [sys.executable, "setup.py", "build_py", "--build-lib", str(tmp_path / "lib")]
    process.output(["env", "-C", str(source), *build], timeout=120)
    done = run_tool(("init", "new"), tmp_path, {"PYTHONPATH": str(tmp_path / "lib")})
    assert (done.code, len(done.stdout.splitlines())) == (0, 7), done.stderr
    installed = tmp_path / "lib" / "orchestrator"
    assert (installed / "templates" / "train.yaml.j2").is_file()
    assert (installed / "lib/zh/cli.json").is_file()


# ---- help and completion


def commands(command: click.Command = cli, path: str = "orchestrator") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with the words that call it."""
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_every_help_has_an_example(path: str) -> None:
    help_text = CliRunner().invoke(cli, [*path.split()[1:], "--help"]).output.partition("\n")[2]  # after the usage
    calls = {path, path.replace("sweep run", "sweep")}  # the default command of its group
    assert any(re.search(rf"{call}(\s|$)", help_text) for call in calls)


def test_help_lists_every_command_once() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert f"_ORCHESTRATOR_COMPLETE={shell}_complete" in script


def test_completion_offers_commands() -> None:
    asked = {"_ORCHESTRATOR_COMPLETE": "bash_complete", "COMP_WORDS": "orchestrator ev", "COMP_CWORD": "1"}
    tool = Path(sys.executable).with_name("orchestrator")
    done = process.output(["env", *(f"{name}={value}" for name, value in asked.items()), str(tool)])
    assert done.split() == ["plain,evaluate"]
