"""The commands of docs/recipe.md, each run in miniature: the same command line, a small model, few rows, a CPU."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import ROOT
from benchmarks.zoo import chain
from orchestrator.lib.files import read_json, write_json, write_text

PAGE = ROOT / "docs/recipe.md"
SPEC = "specs/news-deepseek-r1-7b.yaml"
TRAIN, EVAL = 48, 12
SET_UP = ("make", "setup")
"""What has to have happened before the zoo can be called at all."""
CODES = {"push": (0, 3), "doctor": (0, 3)}
"""Exit codes besides 0 that are right: 3 where this machine has no Ollama, or lacks something only others need."""


def commands(page: Path = PAGE) -> list[list[str]]:
    """The command lines in a page's ```sh blocks, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def arguments(command: Sequence[str], makefile: str) -> list[str]:
    """What the tool is given by a command line; a make target stands for the command in its recipe."""
    if command[0] != "make":
        return list(command[1:])
    target, *variables = command[1:]
    given = dict(one.split("=", 1) for one in variables)
    recipe = re.search(rf"^{target}: .*\n\t@\$\(BIN\)/orchestrator (.*)$", makefile, re.MULTILINE)
    if recipe is None:
        raise LookupError(f"make {target} calls no command of the tool")
    line = recipe[1].replace("$(SPEC)", given.get("SPEC", "spec.yaml")).replace("$(ARGS)", given.get("ARGS", ""))
    return shlex.split(line)


def failures(base: Path, work: Path) -> list[str]:
    """Run every command of the page in a small project on `base`; those that fail, each with its error."""
    lay_out(work, base)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    hub = yaml.safe_load((ROOT / SPEC).read_text(encoding="utf-8"))["model"]["base"]
    failed = []
    for command in commands():
        if tuple(command[:2]) == SET_UP:
            continue
        words = [str(base) if word == hub else word for word in arguments(command, makefile)]
        ended = chain.call(words, work)
        if ended.code not in CODES.get(words[0], (0,)):
            failed.append(f"{shlex.join(command)}: exit code {ended.code}: {ended.complaint or ended.lines[-1:]}")
    return failed


def lay_out(work: Path, base: Path) -> None:
    """A project with the recipe's own spec, cut down to what a CPU does in a minute, and a table of titles."""
    for part, count in (("train", TRAIN), ("eval", EVAL)):
        rows = read_json(ROOT / f"datasets/news-zh/{part}.json")[:count]
        write_json(work / f"datasets/news-zh/{part}.json", rows)
    write_text(work / SPEC, yaml.safe_dump(in_miniature(base), allow_unicode=True, sort_keys=False))
    shutil.copytree(ROOT / "datasets/news", work / "datasets/news")
    write_text(work / "spec.yaml", (ROOT / "spec.yaml").read_text(encoding="utf-8"))
    write_titles(work / "titles.csv")


def in_miniature(base: Path) -> dict[str, Any]:
    """The recipe's spec with another base, one epoch, float32, and a gate that no random model can fail at."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / SPEC).read_text(encoding="utf-8"))
    spec["model"]["base"] = str(base)
    spec["train"] |= {"num_train_epochs": 1, "bf16": False}
    spec["export"]["gate"] = {"min_agreement": 0.0, "max_accuracy_drop": 1.0}
    return spec


def write_titles(file: Path) -> None:
    """titles.csv, as somebody would export it from a spreadsheet."""
    rows = read_json(ROOT / "datasets/news-zh/train.json")
    with file.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("title", "category"))
        for row in rows:
            question, answer = (turn["value"] for turn in row["conversations"])
            writer.writerow((question.removeprefix("新闻分类："), answer))
