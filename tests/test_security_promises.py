"""SECURITY.md names a test for every promise, and the tests are there; releases list what they are made of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import COMMANDS

ROOT = Path(__file__).parent.parent
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))


def promises() -> Iterator[tuple[str, list[str]]]:
    """Each row of the table: what is promised, and what is said to show it."""
    for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| Promise "):
            promise, shown_by = line.strip("| ").rsplit(" | ", 1)
            yield promise, re.findall(r"`([^`]+)`", shown_by)


def exists(proof: str) -> bool:
    """Whether there is such a test, file of tests, make target or command."""
    if proof.startswith("make "):
        return f"\n{proof.removeprefix('make ')}: " in (ROOT / "Makefile").read_text()
    if proof.startswith("orchestrator "):
        return proof.split()[1] in COMMANDS
    path, _, name = proof.rpartition("::")
    if name.startswith("test_"):
        return f"def {name}(" in ((ROOT / path).read_text(encoding="utf-8") if path else TESTS)
    return any(ROOT.glob(name))


def test_every_promise_has_a_proof_that_exists() -> None:
    made = list(promises())
    assert len(made) >= 20
    assert [promise for promise, proofs in made if not proofs] == []
    assert [proof for _, proofs in made for proof in proofs if not exists(proof)] == []


@pytest.mark.parametrize("proof", ["tests/none.py", "tests/test_fetch.py::test_none", "test_none", "make none"])
def test_a_proof_that_does_not_exist_is_noticed(proof: str) -> None:
    assert not exists(proof)


def test_the_bill_of_materials_names_what_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    target = tmp_path / "sbom.json"
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--no-validate", "-o", str(target)]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", "environment", *options, sys.executable], check=True)
    listed = json.loads(target.read_text(encoding="utf-8"))
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "llamafactory-orchestrator")
    parts = {part["name"].lower(): part for part in listed["components"]}
    for name in ("llamafactory", "torch", "transformers", "click"):
        assert parts[name]["purl"].startswith(f"pkg:pypi/{name}@{parts[name]['version']}")
    assert any(
        use["dependsOn"] for use in listed["dependencies"] if use["ref"] == listed["metadata"]["component"]["bom-ref"]
    )
