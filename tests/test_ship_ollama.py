"""push ollama: against a server with Ollama's API, Go's template engine and llama.cpp behind it."""

from __future__ import annotations

import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.rows import split_thinking
from orchestrator.lib import layout
from orchestrator.lib.errors import GateError, InputError, MissingError, StageError
from orchestrator.lib.files import read_json, read_json_lines, write_json
from orchestrator.runs import proof, store
from orchestrator.runs.store import Run
from orchestrator.serving import artifacts, bundle, ollama, ollama_server
from tests.fake_ollama import fake_ollama
from tests.gguf_text import with_template
from tests.serving import serving
from tests.shipped_run import record_again


@pytest.fixture
def run(shipped_run: Run, tmp_path: Path) -> Run:
    """A copy that the test may change."""
    return store.load(Path(shutil.copytree(shipped_run.folder, tmp_path / "runs" / shipped_run.id)))


def ship(run: Run, kind: str, url: str, name: str = "tiny") -> dict[str, Any]:
    return ollama.ship(run, kind, name, ollama_server.connect(url), lambda done, total: None)


@pytest.mark.parametrize("kind", ["f16", "adapter"])
def test_what_is_pushed_answers_as_measured(run: Run, tmp_path: Path, kind: str) -> None:
    with fake_ollama(tmp_path) as server:
        told = ship(run, kind, server.url, "tiny:v1")
        assert list(server.models) == ["tiny:v1"]
        assert server.models["tiny:v1"].parameters == {"stop": ["<|im_end|>"], "temperature": 0, "repeat_penalty": 1}
        assert (server.models["tiny:v1"].adapter is not None) == (kind == "adapter")
    digest, done = told.pop("digest"), told.pop("done")
    assert "12 of 12 prompts are those of training, character by character" in done
    assert told == {
        "rows": 12, "agreement": 1.0, "texts": 12, "equal_texts": 12, "counted": 12, "equal_counts": 12,
        "template": "TEMPLATE", "capabilities": ["completion"], "example": "", "name": "tiny:v1", "completed": 0,
        "unreadable": 0,
    }  # fmt: skip
    entry = store.load(run.folder).record["lineage"]["ollama"]["tiny:v1"]
    sha256 = proof.recorded(run)[layout.gguf("tiny", kind)]["sha256"]
    assert entry == {
        "digest": digest, "gguf": kind, "sha256": sha256, "agreement": 1.0, "template": "TEMPLATE", "version": "0.33.0",
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


def test_a_model_that_was_trained_to_think_comes_back_in_two_parts(
    thinking_run: Run, tmp_path: Path, orchestrator: Any
) -> None:
    run = store.load(Path(shutil.copytree(thinking_run.folder, tmp_path / "runs" / thinking_run.id)))
    with fake_ollama(tmp_path) as server:
        told = ship(run, "f16", server.url)
        assert all(body["think"] is True for body in server.bodies if "options" in body and "think" in body)
        options = ("--model", "tiny", "--max-new-tokens", "19", "--json")
        answer = orchestrator("evaluate", "--endpoint", server.url, *options)
    assert (told["agreement"], told["equal_texts"], told["capabilities"]) == (1.0, 2, ["completion", "thinking"])
    assert "2 of 2 prompts are those of training, character by character" in answer.stderr
    (kept,) = store.load(run.folder).record["endpoints"]
    asked = [split_thinking(row["prediction"]) for row in read_json_lines(run.folder / kept["path"])]
    assert asked == [("The title is about money or companies.", "Business"), ("关于体育。", "")], (
        "the second was cut off"
    )
    assert answer.json["metrics"]["exact_match"]["value"] == 50


def test_where_ollama_takes_the_ggufs_template_it_says_so_and_agrees(run: Run, tmp_path: Path) -> None:
    change_gguf(run, "{# <think></think> #}" + jinja(run))
    with fake_ollama(tmp_path) as server:
        told = ship(run, "f16", server.url)
    assert (told["template"], told["agreement"], told["equal_texts"]) == ("GGUF", 1.0, 12)
    assert told["capabilities"] == ["thinking", "completion"]


def test_one_changed_character_in_template_is_named(run: Run, tmp_path: Path) -> None:
    file = run.folder / f"{layout.MODELFILE}.f16"
    file.write_text(
        file.read_text(encoding="utf-8").replace("<|im_start|>user\n", "<|im_start|>User\n"), encoding="utf-8"
    )
    with fake_ollama(tmp_path) as server, pytest.raises(GateError) as caught:
        ship(run, "f16", server.url)
    assert "12 of 12 prompts are not those of training (row 1, character " in caught.value.message
    assert ": 'User\\nTopic: cup jacket e', in training 'user\\nTopic: cup jacket e'" in caught.value.message
    assert "Ollama used TEMPLATE" in caught.value.message


def test_one_changed_character_in_the_ggufs_template_is_named(run: Run, tmp_path: Path) -> None:
    change_gguf(run, "{# <think></think> #}" + jinja(run).replace("|im_start|>user", "|im_start|>User"))
    with fake_ollama(tmp_path) as server, pytest.raises(GateError) as caught:
        ship(run, "f16", server.url)
    assert ": 'User\\nTopic: cup jacket e', in training 'user\\nTopic: cup jacket e'" in caught.value.message
    assert "Ollama used the template inside the GGUF" in caught.value.message


def jinja(run: Run) -> str:
    return (run.folder / layout.MERGED / "chat_template.jinja").read_text(encoding="utf-8")


def change_gguf(run: Run, template: str) -> None:
    file = run.folder / layout.gguf("tiny", "f16")
    file.replace(file.with_suffix(".old"))
    with_template(file.with_suffix(".old"), file, template)


def test_a_server_that_adds_a_token_fails_the_gate(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, spoil="<|im_start|>") as server, pytest.raises(GateError) as caught:
        ship(run, "f16", server.url)
    assert "12 of 12 prompts have another number of tokens than in training" in caught.value.message
    assert "Ollama used TEMPLATE" in caught.value.message


def test_an_old_server_tells_no_prompt_and_is_proven_by_the_number_of_tokens(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, old=True) as server:
        told = ship(run, "f16", server.url)
    assert (told["texts"], told["counted"], told["equal_counts"], told["capabilities"]) == (0, 12, 12, [])
    assert "12 of 12 prompts have the number of tokens of training" in told["done"]


@pytest.mark.parametrize("file", [layout.predictions("gguf-f16"), layout.stage_config("judge")])
def test_what_was_never_asked_or_judged_is_not_sent(run: Run, tmp_path: Path, file: str) -> None:
    (run.folder / file).unlink()
    with fake_ollama(tmp_path) as server, pytest.raises(MissingError, match="yet"):
        ship(run, "f16", server.url)
    assert not [request for request in server.requests if "blobs" in request or "create" in request]


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
        there = ollama_server.connect(server.url)
        for name in ("first", "second"):
            ollama.push(run, "f16", name, there, lambda done, total: sent.append((done, total)))
        server.busy = 2
        assert ollama.ask(run, "f16", "first", there).agreement == 1.0
        uploads = [request for request in server.requests if request.startswith("POST /api/blobs")]
    size = (run.folder / layout.gguf("tiny", "f16")).stat().st_size
    assert len(uploads) == 1
    assert sent[-1] == (size, size)


def test_a_model_of_that_name_is_never_lost_without_a_word(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path) as server:
        ship(run, "f16", server.url)
        assert f"replaced the Tiny that run {run.id} had made" in ship(run, "f16", server.url, "Tiny")["done"]
        assert list(server.models) == ["tiny:latest"]
        server.models["tiny:latest"].system = "mine"
        other = server.models["tiny:latest"]
        said = ship(run, "f16", server.url)["done"]
        kept = f"tiny:kept-{other.digest[:12]}"
        assert f"Ollama had another tiny, which no run here made: it is now {kept}" in said
        assert server.models[kept] is other


def test_refusals_are_in_ollamas_own_words(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, full=True) as server, pytest.raises(StageError, match="no space left on device"):
        ship(run, "f16", server.url)
    with fake_ollama(tmp_path / "a", drops=True) as server, pytest.raises(StageError, match="broke off while tiny-f16"):
        ship(run, "f16", server.url)
    with fake_ollama(tmp_path) as server:
        modelfile = run.folder / f"{layout.MODELFILE}.f16"
        modelfile.write_text('FROM ./tiny-f16.gguf\nTEMPLATE """{{ if }}"""\n', encoding="utf-8")
        with pytest.raises(InputError, match=r"template error: .*missing value for if"):
            ship(run, "f16", server.url)


def test_an_error_inside_a_good_answer_ends_a_push(run: Run, tmp_path: Path) -> None:
    (run.folder / layout.gguf("tiny", "f16")).write_bytes(b"GGUF, and then nothing")
    with fake_ollama(tmp_path) as server, pytest.raises(StageError, match="llama-quantize failed: exit status 1"):
        ollama.push(run, "f16", "tiny", ollama_server.connect(server.url), lambda done, total: None)


def test_an_ollama_without_its_engine_is_missing_something(run: Run, tmp_path: Path) -> None:
    with fake_ollama(tmp_path, engine=False) as server, pytest.raises(MissingError) as caught:
        ship(run, "f16", server.url)
    assert caught.value.message == "this Ollama has no engine: llama-quantize binary not found"
    assert "ollama.com/download" in caught.value.hint
    with fake_ollama(tmp_path) as server:
        there = ollama_server.connect(server.url)
        ollama.push(run, "f16", "tiny", there, lambda done, total: None)
        server.engine = False
        with pytest.raises(MissingError, match="this Ollama has no engine: llama-server binary not found"):
            ollama.ask(run, "f16", "tiny", there)


@pytest.mark.parametrize("name", ["bad name", "-x", "a/b/c/d", "新闻", "news:", "a:b:c", "news/", ""])
def test_a_name_that_ollama_would_refuse_is_refused_before_anything_is_sent(
    run: Run, tmp_path: Path, name: str
) -> None:
    with fake_ollama(tmp_path) as server:
        with pytest.raises(InputError, match="Ollama takes no model name like"):
            ship(run, "f16", server.url, name)
        assert server.requests == ["GET /api/version"]


@pytest.mark.parametrize("name", ["news", "News", "me/news:V2.1", "box:5000/me/news", "_a"])
def test_names_that_ollama_takes(name: str) -> None:
    ollama.require_name(name)


def test_what_is_no_ollama_is_said_so() -> None:
    def answers(status: int, headers: dict[str, str], body: bytes) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *arguments: Any) -> None:
                return

            def do_GET(self) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

        return Handler

    html = {"Content-Type": "text/html; charset=utf-8"}
    with serving(answers(200, html, b"<html>Log in</html>")) as url, pytest.raises(MissingError) as caught:
        ollama_server.connect(url)
    assert "it answers 200 with text/html, not with a version" in caught.value.message
    with serving(answers(301, {"Location": "https://box/"}, b"")) as url, pytest.raises(MissingError, match="sends on"):
        ollama_server.connect(url)
    with serving(answers(401, html, b"no")) as url, pytest.raises(MissingError, match="without a key") as caught:
        ollama_server.connect(url)
    assert caught.value.hint == "Set OLLAMA_API_KEY."


def test_without_ollama_there_is_a_bundle(run: Run, tmp_path: Path, orchestrator: Any) -> None:
    answer = orchestrator("push", "ollama:tiny", env={"OLLAMA_HOST": "127.0.0.1:9"})
    assert answer.code == 3
    assert "ollama create tiny -f Modelfile" in answer.stderr
    folder = run.folder / "export/bundle-f16"
    assert {path.name for path in folder.iterdir()} == {"Modelfile", "README.md", "tiny-f16.gguf"}


def test_the_chain_creates_the_model_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.cli.push import create_in_ollama

    with fake_ollama(tmp_path) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        create_in_ollama(run, "tiny")
        create_in_ollama(run, "tiny")
        assert list(server.models) == ["tiny:latest"]
        assert server.requests.count("POST /api/create") == 1


def test_the_command_for_a_bundle_can_be_copied(run: Run, tmp_path: Path, orchestrator: Any) -> None:
    answer = orchestrator("push", "ollama:tiny", "--bundle", "my bundle")
    assert answer.stdout.startswith("cd 'my bundle' && ollama create tiny ")


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


def test_the_rows_are_asked_with_the_parameters_that_will_serve(run: Run, tmp_path: Path) -> None:
    file = run.folder / f"{layout.MODELFILE}.f16"
    file.write_text(file.read_text(encoding="utf-8").replace("temperature 0", "temperature 0.9"), encoding="utf-8")
    with (
        fake_ollama(tmp_path) as server,
        pytest.raises(GateError, match=r"as the GGUF was measured to, .*; it answers with temperature 0\.9, and was"),
    ):
        ship(run, "f16", server.url)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("box:8000", "http://box:8000"),
        ("https://box", "https://box:443"),
        ("https://box/ollama/", "https://box:443/ollama"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("[::]", "http://127.0.0.1:11434"),
        (":8000", "http://127.0.0.1:8000"),
    ],
)
def test_ollamas_address(given: str | None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert ollama_server.address(given) == url


@pytest.mark.parametrize("given", ["127.0.0.1:abc", "box:99999", "http://[::1"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(InputError, match="is no address of an Ollama"):
        ollama_server.address(given)


def test_nobody_there() -> None:
    with pytest.raises(MissingError, match=r"no Ollama at http://127\.0\.0\.1:9"):
        ollama_server.connect("127.0.0.1:9")
