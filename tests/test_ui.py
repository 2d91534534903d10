"""The window without a browser: who may come in, what each page says, what is started, and what hostile runs reach."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from orchestrator.lib import process
from orchestrator.lib.errors import InputError
from orchestrator.lib.files import write_json, write_text
from orchestrator.lib.words import counted
from orchestrator.runs import locks, store
from orchestrator.runs.store import Run
from orchestrator.ui import app, start, talk
from orchestrator.ui.door import POLICY
from orchestrator.ui.pages import Window
from tests.example_runs import HOSTILE, make_run, make_sweep
from tests.test_startup import loaded_by

KEY, PORT = "a-key-for-tests", 8080
SPEC = """# mine
name: news
model: {base: "builtin:smollm2-135m-instruct"}
data: {train: data/train.json, eval: data/eval.json}  # kept
train:
  learning_rate: 5.0e-4
"""


def answer(conversation: Any, text: str) -> str:
    """What stands for a model's answer."""
    said = {"role": "assistant", "content": f"{text}! {HOSTILE}"}
    conversation.turns += [{"role": "user", "content": text}, said]
    return text


class Process:
    """What a server is started as."""

    pid = 0

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def stop(self) -> None:
        self.code = 0


class Answering(talk.Servers):
    """Servers that are not started: what is asked comes back."""

    def __init__(self) -> None:
        super().__init__(lambda stack, run, name: (name, Process()))  # type: ignore[arg-type,return-value]


def make_project(folder: Path, trials: int) -> Path:
    """A project with a hostile run, another one, and a sweep."""
    write_text(folder / "spec.yaml", SPEC)
    for name in ("train", "eval"):
        write_json(folder / f"data/{name}.json", [])
    run = make_run(folder / "runs", wrong=range(1, 30, 3), answer=HOSTILE)
    write_text(run.folder / "export/Modelfile", "FROM ./news-f16.gguf\n")
    make_run(folder / "runs", learning_rate=1e-4)
    make_sweep(folder / "runs", trials)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("我的项目"), trials=3)


@pytest.fixture
def window(project: Path) -> Window:
    return Window(project, project / "runs")


@pytest.fixture
def client(window: Window) -> Iterator[TestClient]:
    at = f"http://127.0.0.1:{PORT}"
    with TestClient(app.application(window, KEY, PORT, Answering()), at, follow_redirects=False) as opened:
        opened.get(f"/?key={KEY}")
        yield opened


@pytest.fixture
def run(window: Window) -> Run:
    return next(run for run in store.every(window.runs_dir) if (run.folder / "export/Modelfile").is_file())


def test_asks_for_the_key(client: TestClient) -> None:
    client.cookies.clear()
    assert client.get("/").status_code == 401
    assert client.get("/?key=wrong").status_code == 401
    assert client.get("/static/ui.js").status_code == 401
    opened = client.get("/new?spec=spec.yaml&key=" + KEY)
    assert (opened.status_code, opened.headers["location"]) == (303, "/new?spec=spec.yaml")
    spaced = client.get(f"/run/a%20%C3%BC/answers?q=a+b%2Bc&key={KEY}")
    assert spaced.headers["location"] == "/run/a%20%C3%BC/answers?q=a+b%2Bc"
    assert opened.headers["set-cookie"].endswith("; HttpOnly; Path=/; SameSite=strict")
    assert client.get("/").status_code == 200


def test_answers_no_other_site(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    refused = client.post("/start", headers={"Origin": "https://evil.example"})
    assert (refused.status_code, client.get("/").status_code) == (403, 200)


def test_every_answer_has_the_policy(client: TestClient, run: Run) -> None:
    for path in ("/", f"/run/{run.id}", "/new", "/nothing", "/static/report.js"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY and "unsafe" not in POLICY
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_lists_runs_and_sweeps(client: TestClient, run: Run) -> None:
    text = client.get("/").text
    assert f'href="/run/{run.id}"' in text and "20260102T030405Z-news-sweep-abcdef" in text and "66.7" in text


def test_a_run_shows_its_report_and_links_from_the_confusion(client: TestClient, run: Run) -> None:
    text = client.get(f"/run/{run.id}").text
    assert "Every answer" in text and "FROM ./news-f16.gguf" in text
    assert "&lt;script&gt;document.title" in text and "<script>document" not in text
    assert re.findall(r'<script src="([^"]+)"', text) == ["/static/htmx.min.js", "/static/report.js", "/static/ui.js"]
    cell = re.search(r'href="(/run/[^"]+/answers\?artifact=tuned[^"]+Politik[^"]+)"', text)
    assert cell
    found = client.get(cell[1].replace("&amp;", "&")).text
    assert "10 rows</output>" in found and "where it is Politik" in found


@pytest.mark.parametrize(
    ("asked", "count"),
    [("", 30), ("q=headline+14", 1), ("kind=tuned+is+wrong", 10), ("page=99", 30), ("page=x", 30), ("artifact=no", 0),
     ("artifact=tuned&expected=体育&named=体育", 10), ("artifact=tuned&expected=体育&named=Sports", 0)],
)  # fmt: skip
def test_answers_are_filtered(client: TestClient, run: Run, asked: str, count: int) -> None:
    assert f"{counted(count, 'row')}</output>" in client.get(f"/run/{run.id}/answers?{asked}").text


def test_the_export_is_the_single_file(client: TestClient, run: Run) -> None:
    sent = client.get(f"/run/{run.id}/export")
    assert sent.headers["content-disposition"] == f'attachment; filename="{run.id}.html"'
    assert "<style>" in sent.text and "/static/" not in sent.text


def test_runs_are_compared(client: TestClient, window: Window) -> None:
    first, second = (each.id for each in store.every(window.runs_dir))
    text = client.get(f"/compare?run={first}&run={second}").text
    assert "learning_rate" in text and "<polyline" in text
    assert "takes two runs or more" in client.get(f"/compare?run={first}").text


def test_a_sweep_links_its_trials(client: TestClient) -> None:
    text = client.get("/sweep/20260102T030405Z-news-sweep-abcdef").text
    assert 'href="/run/20260102T030000Z-news-000000"' in text and "Ranking" in text


GONE = (
    "/run/20260101T000000Z-gone-000000",
    "/run/...",
    "/run/%2e%2e%2fruns",
    "/run/.started",
    "/sweep/.index",
    "/started/..%2fspec.yaml",
    "/static/..%2freport.css",
    "/else",
)


@pytest.mark.parametrize("path", GONE)
def test_what_is_not_there_is_said_in_a_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert "Traceback" not in answer.text and "name: news" not in answer.text
    assert answer.status_code == 404 or "Nothing yet." in answer.text


def test_a_run_that_is_removed_while_shown_is_missed(client: TestClient, window: Window) -> None:
    import shutil

    gone = store.create(window.runs_dir, "gone")
    assert "data-live" in client.get(f"/run/{gone.id}").text
    shutil.rmtree(gone.folder)
    answer = client.get(f"/run/{gone.id}")
    assert answer.status_code == 404 and "It may have been removed" in answer.text and "hx-trigger" not in answer.text


def test_a_hostile_run_reaches_nothing(client: TestClient, window: Window, tmp_path: Path) -> None:
    write_text(tmp_path / "secret", "KEPT-TO-MYSELF")
    hostile = make_run(window.runs_dir, "hostile", answer=HOSTILE)
    try:
        hostile.record["stages"][HOSTILE] = {"status": "running", "argv": [HOSTILE]}
        hostile.record["stages"]["../../../secret"] = {"status": "running"}
        hostile.set(status="running", lineage={HOSTILE: HOSTILE})
        for path in ("logs/train.log", "export/Modelfile", "evaluation/base.jsonl"):
            (hostile.folder / path).parent.mkdir(exist_ok=True)
            (hostile.folder / path).unlink(missing_ok=True)
            (hostile.folder / path).symlink_to(tmp_path / "secret")
        for path in ("", "/answers", "/chat"):
            text = client.get(f"/run/{hostile.id}{path}").text
            assert "KEPT-TO-MYSELF" not in text and "<script>document" not in text and "<img" not in text
    finally:
        hostile.set(status="completed")


def test_a_live_run_shows_queue_memory_and_log(client: TestClient, window: Window) -> None:
    run = make_run(window.runs_dir, "live")
    write_text(run.folder / "logs/train.log", "step 5 of 60 <b>\n")
    run.record["stages"]["train"] = {"status": "running", "argv": [], "started_at": store.now()}
    run.record["stages"].pop("judge")
    run.set(status="running")
    text = client.get(f"/run/{run.id}").text
    assert 'hx-trigger="every 2s"' in text and "step 5 of 60 &lt;b&gt;" in text and "Main memory in use" in text
    assert re.findall(r'<li class="(\w+)">(\w+)', text)[:2] == [("completed", "prepare"), ("running", "train")]
    assert "No process of this machine works on it" in text and ">Stop<" not in text
    with locks.locked(run.folder):
        assert ">Stop<" in client.get(f"/run/{run.id}").text
    run.set(status="interrupted")
    assert ">Go on<" in client.get(f"/run/{run.id}").text
    run.set(status="completed")


def form(**values: str) -> dict[str, str]:
    known = {"name": "news", "model.base": "builtin:smollm2-135m-instruct", "data.train": "data/train.json"}
    return {"spec": "spec.yaml", **known, "data.eval": "data/eval.json", "train.learning_rate": "0.0005", **values}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[process.Command]:
    begun: list[process.Command] = []
    monkeypatch.setattr(process, "start_detached", begun.append)
    return begun


def test_a_form_shows_the_change_then_writes_and_starts(
    client: TestClient, project: Path, launched: list[process.Command]
) -> None:
    shown = client.get("/new").text
    assert 'name="train.learning_rate" value="0.0005"' in shown and 'value="builtin:smollm2-135m-instruct"' in shown
    changed = client.post("/new", data=form(**{"train.learning_rate": "1e-4", "more": "train.seed=7"})).text
    assert "-  learning_rate: 5.0e-4" in changed and "+  seed: 7" in changed, changed
    assert (project / "spec.yaml").read_text() == SPEC and launched == []
    hidden = dict(re.findall(r'type="hidden" name="(seen|spec|what)" value="([^"]*)"', changed))
    [changes] = re.findall(r'name="changes"[^>]*>([^<]*)<', changed)
    going = client.post("/start", data={**hidden, "changes": changes})
    assert going.status_code == 303 and re.fullmatch(r"/started/\w+Z-run\.log", going.headers["location"])
    text = (project / "spec.yaml").read_text()
    assert "# mine" in text and "# kept" in text and "seed: 7" in text
    assert launched[0].argv[1:5] == ("-m", "orchestrator", "run", str(project / "spec.yaml"))
    again = client.post("/start", data={**hidden, "changes": changes})
    assert again.status_code == 404 and "spec.yaml was changed meanwhile" in again.text and len(launched) == 1
    write_text(project / "spec.yaml", SPEC)


WRONG = [
    ({"train.learning_rate": "fast"}, "learning_rate"),
    ({"more": "train.learning_rat=1"}, "learning_rat"),
    ({"more": "nonsense"}, "nonsense"),
    ({"name": "<b>"}, "&lt;b&gt;"),
    ({"spec": "../other.yaml"}, "there is no spec"),
]


@pytest.mark.parametrize(("values", "said"), WRONG)
def test_a_form_that_cannot_run_says_why(
    client: TestClient, project: Path, values: dict[str, str], said: str, launched: list[process.Command]
) -> None:
    text = client.post("/new", data=form(**values)).text
    assert said in text and "Write and start" not in text
    assert (project / "spec.yaml").read_text() == SPEC and launched == []


def test_only_what_is_known_is_started(client: TestClient, launched: list[process.Command]) -> None:
    wrong = {"spec": "spec.yaml", "what": "run; rm", "seen": "", "changes": ""}
    assert client.post("/start", data=wrong).status_code == 404
    assert client.post("/start", content=b"x" * (app.MOST_BYTES + 1)).status_code == 404
    assert launched == []


def test_an_interrupted_run_goes_on_from_its_own_spec(
    client: TestClient, run: Run, launched: list[process.Command]
) -> None:
    assert client.post(f"/run/{run.id}/resume").status_code == 303
    assert launched[0].argv[3:5] == ("run", str(run.folder / "spec.yaml"))


HOLDS = """
import time
from pathlib import Path
from orchestrator.runs.locks import locked
with locked(Path({!r})):
    print("held", flush=True)
    time.sleep(60)
"""


def test_who_works_on_a_run_is_asked_to_end(client: TestClient, window: Window, run: Run) -> None:
    assert "nobody works on" in client.post(f"/run/{run.id}/stop").text
    code = HOLDS.format(str(run.folder))
    child = process.start(process.Command((sys.executable, "-c", code), window.project, window.project / "held.log"))
    while not (window.project / "held.log").read_text():
        assert child.poll() is None
    assert locks.worker(run.folder) == child.pid
    assert client.post(f"/run/{run.id}/stop").headers["location"] == f"/run/{run.id}"
    assert process.wait(child) == -15


def test_two_artifacts_are_asked_the_same(client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk.Conversation, "answer", answer)
    monkeypatch.setattr("orchestrator.serving.artifacts.choose", lambda run, name: name)
    monkeypatch.setattr("orchestrator.serving.artifacts.thinking", lambda run: (None, ("", "")))
    asked = {"a": "base", "b": "tuned", "text": "你好", "before": "{}"}
    text = client.post(f"/run/{run.id}/chat", data=asked).text
    assert text.count("你好!") >= 2 and "<script>document" not in text
    [before] = re.findall(r'name="before" value="([^"]*)"', text)
    kept = json.loads(before.replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'"))
    assert [len(turns) for turns in kept.values()] == [2, 2]
    again = client.post(f"/run/{run.id}/chat", data={**asked, "text": "more", "before": json.dumps(kept)}).text
    assert again.count("more!") >= 2 and again.count('class="turn user"') == 4
    assert "cannot be read" in client.post(f"/run/{run.id}/chat", data={**asked, "before": "[1]"}).text
    assert "nothing was asked" in client.post(f"/run/{run.id}/chat", data={**asked, "text": " "}).text


def test_no_more_than_two_models_are_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr("orchestrator.serving.artifacts.choose", lambda run, name: name)

    def serve(stack: Any, run: Run, name: str) -> Any:
        stack.callback(ended.append, name)
        return name, Process()

    servers = talk.Servers(serve)
    assert servers.endpoints(run, ["a", "b"]) == ["a", "b"]
    servers.endpoints(run, ["a"])
    servers.endpoints(run, ["c"])
    assert ended == ["b"], "asked longest ago"
    servers.close()
    assert sorted(ended) == ["a", "b", "c"]


def test_a_server_that_died_is_started_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Process] = []
    monkeypatch.setattr("orchestrator.serving.artifacts.choose", lambda run, name: name)

    def serve(stack: Any, run: Run, name: str) -> Any:
        started.append(Process())
        return f"{name} {len(started)}", started[-1]

    servers = talk.Servers(serve)
    assert servers.endpoints(run, ["a", "b"]) == servers.endpoints(run, ["a", "b"]) == ["a 1", "b 2"]
    started[0].code = -9
    assert servers.endpoints(run, ["a", "b"]) == ["a 3", "b 2"]
    servers.close()


def test_no_other_command_loads_the_window() -> None:
    code = "import orchestrator.cli.chain, orchestrator.cli.report, orchestrator.cli.serving, orchestrator.sweep.run"
    assert loaded_by(code) & {"starlette", "uvicorn"} == set()
    names = process.output([sys.executable, "-c", f"{code}\nimport sys\nprint([n for n in sys.modules if '.ui' in n])"])
    assert names.split() == ["[]"]


def test_the_window_stays_small() -> None:
    files = [*Path(app.__file__).parent.glob("*.py"), Path(app.__file__).parents[1] / "cli/ui.py"]
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 1200


def test_a_stop_is_of_a_run_of_this_window(window: Window) -> None:
    with pytest.raises(InputError, match="there is no run"):
        start.stop(window, "../elsewhere")
