"""The window over a real run: begun from its form, followed, left alone by a window that is killed, stopped, gone on
with, and talked to. Marked slow: two minutes."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from orchestrator.lib import process
from orchestrator.runs import locks, store
from orchestrator.runs.store import Run

pytestmark = pytest.mark.slow


@contextmanager
def window(project: Path) -> Iterator[tuple[httpx.Client, process.LocalChild]]:
    """`orchestrator ui` as a user starts it, and a client with its key."""
    log = project / f"ui-{time.monotonic_ns()}.log"
    argv = (sys.executable, "-m", "orchestrator", "ui", str(project))
    child = process.start(process.Command(argv, project, log))
    try:
        until(lambda: child.poll() is None and "?key=" in log.read_text())
        address = log.read_text().split()[0]
        with httpx.Client(base_url=address.partition("/?")[0], timeout=120, follow_redirects=True) as client:
            until(lambda: answers(client, address))
            yield client, child
    finally:
        child.stop()


def answers(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(address).status_code == 200
    except httpx.TransportError:
        return False


def until(holds: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def newest(project: Path) -> Run:
    return store.find(project / "runs", None)


def test_a_run_from_the_form_to_a_chat(project: Path) -> None:
    with window(project) as (client, first):
        form = dict(re.findall(r'<input name="([^"]+)" value="([^"]*)"', client.get("/new").text))
        form = {key: value.replace("&#34;", '"') for key, value in form.items()}
        asked = {**form, "spec": "spec.yaml", "what": "run", "export.gguf": "[f16]", "more": "train.num_train_epochs=3"}
        shown = client.post("/new", data=asked).text
        hidden = dict(re.findall(r'type="hidden" name="(seen|spec|what)" value="([^"]*)"', shown))
        [changes] = re.findall(r'name="changes"[^>]*>([^<]*)<', shown)
        began = client.post("/start", data={**hidden, "changes": changes})
        assert "It goes on when this window is closed" in began.text
        until(lambda: list(store.every(project / "runs")))
        run = newest(project)
        until(lambda: ">Stop<" in client.get(f"/run/{run.id}").text)
        first.stop()
    at = locks.worker(run.folder)
    assert at is not None, "the run goes on"
    until(lambda: newest(project).stage("prepare").get("status") == "completed")
    with window(project) as (client, second):
        live = client.get(f"/run/{run.id}").text
        assert 'class="waiting">judge' in live and 'hx-trigger="every' in live
        assert client.post(f"/run/{run.id}/stop").status_code == 200
        until(lambda: locks.worker(run.folder) != at)
        assert newest(project).record["status"] == "interrupted"
        assert ">Go on<" in client.get(f"/run/{run.id}").text
        assert "What it says" in client.post(f"/run/{run.id}/resume").text
        until(lambda: newest(project).record["status"] == "completed" and locks.worker(run.folder) is None)
        assert newest(project).id == run.id
        done = client.get(f"/run/{run.id}").text
        assert "Artifacts" in done and "Modelfile" in done and "<polyline" in done and "Peak memory" in done
        asked = {"a": "tuned", "b": "f16", "text": "Which topic? cup goal", "before": "{}"}
        talked = client.post(f"/run/{run.id}/chat", data=asked)
        assert talked.status_code in (200, 409), talked.text
        assert talked.text.count('class="turn model"') == 2 or "gate" in talked.text
        assert second.poll() is None
