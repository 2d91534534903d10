"""What was taken from elsewhere is as it came, with its license beside it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LISTS = sorted(ROOT.glob("*/vendored/README.md")) + sorted(ROOT.glob("orchestrator/**/vendored/README.md"))


ROW = re.compile(r"^\| (\S+) \| .* \((\S+)\) \| ([0-9a-f]{64}) \|$", re.MULTILINE)


@pytest.mark.parametrize("listed", LISTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_is_as_it_came(listed: Path) -> None:
    rows = ROW.findall(listed.read_text(encoding="utf-8"))
    assert {name for name, _, _ in rows} == {path.name for path in listed.parent.glob("*.js")} != set()
    for name, license_file, digest in rows:
        assert hashlib.sha256((listed.parent / name).read_bytes()).hexdigest() == digest
        assert (listed.parent / license_file).stat().st_size > 100
