"""The notebook: its cells are run as IPython would run them, on the tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent.parent / "notebooks" / "first_model.ipynb"
SMALL = "--set data.max_samples=24 --set export.gguf=[f16] --set train.num_train_epochs=1 --set evaluate.better_than=[]"
LOOSE = "--set export.gate.max_accuracy_drop=1.0 --set export.gate.min_agreement=0.0"


def cells() -> Iterator[tuple[str, list[str]]]:
    """Source and tags of each cell of code."""
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield cell["source"], cell["metadata"].get("tags", [])


class Kernel:
    """As much of IPython as the notebook uses: `!command`, `%cd`, {name} in both, and Python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.printed = folder, ""
        self.names: dict[str, Any] = {}

    def run(self, source: str) -> None:
        lines = source.splitlines()
        if not any(line.startswith(("!", "%")) for line in lines):
            exec(compile(source, str(NOTEBOOK), "exec"), self.names)
            return
        for line in lines:
            self.command(line.format(**self.names))

    def command(self, line: str) -> None:
        if line.startswith("%cd "):
            self.folder /= line.removeprefix("%cd ")
            os.chdir(self.folder)
            return
        assert line.startswith("!"), f"a cell holds commands or Python, not both: {line}"
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(line[1:], shell=True, cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        self.printed += done.stdout


def test_it_is_a_notebook_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["language_info"]["name"]) == (4, "python")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    assert [tags for _, tags in cells() if tags] == [["parameters"]]


@pytest.mark.slow
def test_every_cell_runs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kernel = Kernel(tmp_path)
    options = f"--set model.base={tiny_model} --set model.template=smollm2 {SMALL} {LOOSE}"
    for source, tags in cells():
        kernel.run(source)
        if "parameters" in tags:
            kernel.names["OPTIONS"] = options
    assert "gain over the best baseline" in " ".join(kernel.printed.split())
    said = capsys.readouterr().out
    assert all(artifact in said for artifact in ("majority", "base-prompted", "tuned", "gguf-f16"))
    assert (kernel.folder / "spec.yaml").is_file()
