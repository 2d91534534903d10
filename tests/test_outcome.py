"""What a finished run tells its user to do."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.lib import layout
from orchestrator.lib.files import write_json
from orchestrator.report.console import show_run
from orchestrator.runs import store
from tests.conftest import write_tree


@pytest.mark.parametrize(
    ("recommended", "served"), [("gguf-q4_k_m", "Modelfile"), ("gguf-f16", "Modelfile.f16"), (None, None)]
)
def test_only_the_recommended_file_is_offered_to_serve(
    recommended: str | None, served: str | None, tmp_path: Path, capsys: Any
) -> None:
    run = store.create(tmp_path / "我的 runs", "news", stages={"judge": {"status": "completed"}})
    files = {layout.MODELFILE: "FROM q4", f"{layout.MODELFILE}.q4_k_m": "FROM q4", f"{layout.MODELFILE}.f16": "FROM 16"}
    write_tree(run.folder, files)
    best = {"artifact": recommended, "bytes": 1, "sentence": "smallest"} if recommended else None
    verdict = {"metrics": {"tuned": {"n": 1}}, "failures": [], "comparisons": [], "sizes": {}, "recommendation": best}
    write_json(run.folder / layout.summary("judge"), verdict)
    show_run(run, Console(width=200))
    told = [
        shlex.split(line)[-1].split("/")[-1]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("serve it")
    ]
    assert told == ([served] if served else [])
