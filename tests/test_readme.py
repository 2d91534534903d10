"""The READMEs tell the truth: their spec loads, their commands exist, their generated parts are of this code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from orchestrator.cli import COMMANDS
from orchestrator.lib import process
from orchestrator.spec.load import load_project

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh.md")


def blocks(name: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for found, text in fenced if found == language]


@pytest.mark.parametrize("name", READMES)
def test_the_spec_of_the_readme_loads(name: str, tmp_path: Path) -> None:
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    spec = tmp_path / "spec.yaml"
    spec.write_text(blocks(name, "yaml")[0], encoding="utf-8")
    assert load_project(spec).spec.name == "news"


@pytest.mark.parametrize("name", READMES)
def test_the_spec_of_the_readme_is_the_one_that_made_its_table(name: str, tmp_path: Path) -> None:
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    (tmp_path / "spec.yaml").write_text(blocks(name, "yaml")[0], encoding="utf-8")
    assert load_project(tmp_path / "spec.yaml").spec == load_project(ROOT / "spec.yaml").spec


@pytest.mark.parametrize("name", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("specs/*.yaml")))
def test_recipes_are_served_as_they_are_measured(name: str) -> None:
    served = load_project(ROOT / name).spec.export.ollama.parameters
    assert served == {"temperature": 0, "repeat_penalty": 1}


@pytest.mark.parametrize("name", READMES)
def test_every_command_of_the_readme_exists(name: str) -> None:
    text = "\n".join(blocks(name, ""))
    called = set(re.findall(r"orchestrator ([a-z-]+)", text))
    assert called and called <= set(COMMANDS)


@pytest.mark.parametrize("name", READMES)
def test_every_make_target_of_the_readme_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks(name, "")), re.MULTILINE))
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#\s]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_generated_parts_are_of_this_code() -> None:
    process.output([sys.executable, str(ROOT / "scripts" / "readme.py"), "--check"])


def test_both_readmes_say_the_same_things() -> None:
    shapes = [re.findall(r"^(#+) ", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE) for name in READMES]
    assert shapes[0] == shapes[1]
