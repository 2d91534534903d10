"""push ollama: against a server with Ollama's API, Go's template engine and llama.cpp behind it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator import layout, records
from orchestrator.errors import GateError, InputError, MissingError, StageError
from orchestrator.files import read_json, write_json
from orchestrator.records import Run
from orchestrator.ship import artifacts, bundle, ollama
from tests.fake_ollama import fake_ollama
from tests.shipped_run import record_again


@pytest.fixture
def run(shipped_run: Run, tmp_path: Path) -> Run:
    """A copy that the test may change."""
    return records.load(Path(shutil.copytree(shipped_run.folder, tmp_path / "runs" / shipped_run.id)))


def ship(run: Run, kind: str, url: str, name: str = "tiny") -> dict[str, Any]:
    return ollama.ship(run, kind, name, ollama.connect(url), lambda done, total: None)


@pytest.mark.parametrize("kind", ["f16", "adapter"])
def test_what_is_pushed_answers_as_measured(run: Run, tmp_path: Path, kind: str) -> None:
    with fake_ollama(tmp_path) as server:
        told = ship(run, kind, server.url, "tiny:v1")
        assert list(server.models) == ["tiny:v1"], "the probe is gone"
        assert server.models["tiny:v1"].parameters == {"stop": ["<|im_end|>"], "temperature": 0}
        assert (server.models["tiny:v1"].adapter is not None) == (kind == "adapter")
    assert {key: told[key] for key in ("rows", "agreement", "counted", "equal_counts", "template")} == {
        "rows": 12, "agreement": 1.0, "counted": 12, "equal_counts": 12, "template": "TEMPLATE",
    }  # fmt: skip
    entry = records.load(run.folder).record["lineage"]["ollama"]["tiny:v1"]
    sha256 = run.stage("convert" if kind == "f16" else "adapter")["outputs"][0]["sha256"]
    assert entry == {
        "digest": told["digest"], "gguf": kind, "sha256": sha256, "agreement": 1.0, "template": "TEMPLATE",
    }  # fmt: skip
    assert ollama.is_current(run, kind, "tiny:v1")
    assert not ollama.is_current(run, kind, "tiny:v2")


def test_a_pretraining_is_sent_and_asked_nothing(run: Run, tmp_path: Path) -> None:
    config = run.folder / "configs/prepare.json"
    write_json(config, {**read_json(config), "kind": "pt"})
    (run.folder / layout.PROMPTS).unlink()
    with fake_ollama(tmp_path) as server:
        told = ship(run, "f16", server.url)
        assert list(server.models) == ["tiny:latest"]
    assert (told["rows"], "ask nothing" in told["done"]) == (0, True)
    assert ollama.is_current(run, "f16", "tiny")


def test_a_server_that_prefers_the_gguf_template_is_found_out_and_agrees(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, prefers_gguf_template=True) as server:
        told = ship(run, "f16", server.url)
    assert (told["template"], told["agreement"], told["equal_counts"]) == ("GGUF", 1.0, 12)


def test_a_server_that_adds_a_token_fails_the_gate(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, spoil="<|im_start|>") as server, pytest.raises(GateError) as caught:
        ship(run, "f16", server.url)
    assert "12 of 12 prompts have another number of tokens than in training" in caught.value.message
    assert "Ollama used TEMPLATE" in caught.value.message


def test_other_answers_fail_the_gate(run: Run, tmp_path: Path) -> None:
    file = artifacts.answers(run, "f16")
    file.write_text(
        file.read_text(encoding="utf-8").replace('"prediction": "', '"prediction": "other'), encoding="utf-8"
    )
    with fake_ollama(tmp_path) as server, pytest.raises(GateError, match="answers 0 % of 12 rows"):
        ship(run, "f16", server.url)


def test_a_busy_server_is_asked_again_and_a_file_is_sent_once(run: Run, tmp_path: Path) -> None:
    sent: list[tuple[int, int]] = []
    with fake_ollama(tmp_path) as server:
        there = ollama.connect(server.url)
        for name in ("first", "second"):
            ollama.push(run, "f16", name, there, lambda done, total: sent.append((done, total)))
        server.busy = 2
        assert ollama.check(run, "f16", "first", there).agreement == 1.0
        uploads = [request for request in server.requests if request.startswith("POST /api/blobs")]
    size = (run.folder / layout.gguf("tiny", "f16")).stat().st_size
    assert len(uploads) == 1
    assert sent[-1] == (size, size)


def test_refusals_are_in_ollamas_own_words(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, full=True) as server, pytest.raises(StageError, match="no space left on device"):
        ship(run, "f16", server.url)
    with fake_ollama(tmp_path) as server:
        with pytest.raises(InputError, match="invalid model name"):
            ship(run, "f16", server.url, "-x")
        modelfile = run.folder / f"{layout.MODELFILE}.f16"
        modelfile.write_text('FROM ./tiny-f16.gguf\nTEMPLATE """{{ if }}"""\n', encoding="utf-8")
        with pytest.raises(InputError, match=r"template error: .*missing value for if"):
            ship(run, "f16", server.url)


def test_without_ollama_there_is_a_bundle(run: Run, tmp_path: Path, orchestrator: Any) -> None:
    answer = orchestrator("push", "ollama:tiny", env={"OLLAMA_HOST": "127.0.0.1:9"})
    assert answer.code == 3
    assert "ollama create tiny -f Modelfile" in answer.stderr
    folder = run.folder / "export/bundle-f16"
    assert {path.name for path in folder.iterdir()} == {"Modelfile", "README.md", "tiny-f16.gguf"}


def test_the_chain_creates_the_model_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cli.ship import create_in_ollama

    with fake_ollama(tmp_path) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        create_in_ollama(run, "tiny")
        create_in_ollama(run, "tiny")
        assert list(server.models) == ["tiny:latest"]
        assert server.requests.count("POST /api/create") == 2, "the model and its probe, once"


def test_a_bundle_of_an_adapter_brings_its_base(run: Run, tmp_path: Path) -> None:
    written = bundle.write(run, "adapter", "tiny", tmp_path / "bundle")
    assert [path.name for path in written] == ["Modelfile", "README.md", "tiny-adapter.gguf", "tiny-base.gguf"]
    (tmp_path / "bundle/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        bundle.write(run, "f16", "tiny", tmp_path / "bundle")


def test_what_the_gate_refused_is_not_shipped(run: Run) -> None:
    assert artifacts.choose_gguf(run, None, force=False) == "f16"
    file = run.folder / layout.summary("judge")
    failure = {"artifact": "gguf-f16", "sentence": "gguf-f16 answers 3 % of the rows as tuned does"}
    write_json(file, {**read_json(file), "failures": [failure], "recommendation": None})
    with pytest.raises(GateError, match=r"not what was proven:\nevaluation/summary-judge.json: has "):
        artifacts.choose_gguf(run, "f16", force=False)
    record_again(run, "judge")
    with pytest.raises(GateError, match="3 %"):
        artifacts.choose_gguf(run, "f16", force=False)
    assert artifacts.choose_gguf(run, "f16", force=True) == "f16"
    with pytest.raises(InputError) as caught:
        artifacts.choose(run, "q9_k")
    assert caught.value.hint == "This run has: base, tuned, adapter, f16."


def test_an_edited_modelfile_is_told_apart_before_anything_is_sent(run: Run) -> None:
    file = run.folder / f"{layout.MODELFILE}.f16"
    file.write_text(file.read_text(encoding="utf-8").replace("temperature 0", "temperature 0.9"), encoding="utf-8")
    with pytest.raises(GateError, match=r"Modelfile\.f16: has .*\(temperature 0\.9 instead of 0; what is to be served"):
        artifacts.choose_gguf(run, "f16", force=False)
    assert artifacts.choose_gguf(run, "f16", force=True) == "f16"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("box:8000", "http://box:8000"),
        ("https://box", "https://box:443"),
    ],
)
def test_ollamas_address(given: str | None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert ollama.address(given) == url


def test_nobody_there() -> None:
    with pytest.raises(MissingError, match=r"no Ollama at http://127\.0\.0\.1:9"):
        ollama.connect("127.0.0.1:9")
