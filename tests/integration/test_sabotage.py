"""Break the tokenizer, the template or the weights on the way to the GGUF: the gate must say no, and say which."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.models import llamacpp
from tests.conftest import make_project, run_tool

pytestmark = pytest.mark.slow

CONVERTER = """\
import runpy, sys
from pathlib import Path

merged, target = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("--outfile") + 1])

{before}
sys.path.insert(0, {real!r})
sys.argv[0] = {real!r} + "/convert_hf_to_gguf.py"
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
{after}
"""

TEMPLATE = """
file = merged / "chat_template.jinja"
file.write_text(file.read_text().replace("<|im_start|>user", "<|im_start|>human"))
"""

TOKENIZER = """
import json
file = merged / "tokenizer.json"
tokenizer = json.loads(file.read_text())
vocabulary = tokenizer["model"]["vocab"]
vocabulary["Ġgarden"], vocabulary["Ġbridge"] = vocabulary["Ġbridge"], vocabulary["Ġgarden"]
file.write_text(json.dumps(tokenizer))
"""

WEIGHTS = """
from gguf import GGUFReader
import numpy
for tensor in GGUFReader(target, "r+").tensors:
    if tensor.name.endswith("ffn_down.weight") or tensor.name == "token_embd.weight":
        tensor.data[...] = numpy.roll(tensor.data, 3, axis=0)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project that was run up to its scores."""
    project = make_project(tmp_path_factory.mktemp("sabotage"), tiny_model)
    spec = project / "spec.yaml"
    spec.write_text(spec.read_text().replace("gguf: [f16, q8_0]", "gguf: [q8_0]"))
    done = run_tool(("evaluate",), project)
    assert done.code == 0, done.stderr
    return project


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [(TEMPLATE, "", "template"), (TOKENIZER, "", "tokenizer"), ("", WEIGHTS, "conversion or quantisation")],
    ids=["template", "tokenizer", "quantisation"],
)
def test_the_gate_names_what_was_broken(trained: Path, tmp_path: Path, before: str, after: str, cause: str) -> None:
    real = str(llamacpp.fetch())
    text = CONVERTER.format(before=before, after=after, real=real)
    (tmp_path / "convert_hf_to_gguf.py").write_text(text)
    project = tmp_path / "project"
    shutil.copytree(trained, project)

    done = run_tool(("export",), project, {"LLAMA_CPP_DIR": str(tmp_path)})

    assert done.code == 5, done.stderr
    assert f"likely cause: {cause}" in done.stderr
    assert "gguf-q8_0" in done.stdout


def test_without_sabotage_the_same_project_passes(trained: Path) -> None:
    done = run_tool(("export",), trained)
    assert done.code == 0, done.stderr
