"""The window in a real Chromium: whole and accessible everywhere, live without reload, and two people at once."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lib.files import write_text
from orchestrator.runs import store
from orchestrator.ui import app
from orchestrator.ui.pages import Window
from tests.browser import (
    MISSING,
    WHY_MISSING,
    WIDTHS,
    Browser,
    all_of,
    colour_scheme,
    complaints,
    inaccessible,
    started,
)
from tests.example_runs import write_log
from tests.test_ui import SPEC, Answering, answer, make_project

pytestmark = pytest.mark.skipif(bool(MISSING), reason=WHY_MISSING)
KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Window:
    project = make_project(tmp_path_factory.mktemp("project"), trials=6)
    return Window(project, project / "runs")


@pytest.fixture(scope="module")
def address(window: Window) -> Iterator[str]:
    """A server that runs in a thread, at a port of its own."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(app.application(window, KEY, port, Answering()), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def chromium(address: str) -> Iterator[Browser]:
    with started() as driver:
        driver.get(f"{address}/?key={KEY}")
        yield driver


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    chromium.get_log("browser")
    return chromium


def until(browser: Browser, holds: Any, seconds: float = 20) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    # htmx replaces what was found a moment ago
    wait = WebDriverWait(browser, seconds, ignored_exceptions=[StaleElementReferenceException])
    wait.until(lambda _: holds())


def text_of(browser: Browser, selector: str) -> str:
    """Of what is there; between two pages that is nothing."""
    return "\n".join(found.text for found in all_of(browser, selector))


def first_run(window: Window) -> str:
    return next(run.id for run in store.every(window.runs_dir) if (run.folder / "export/Modelfile").is_file())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/run/{}", "/run/{}/answers", "/run/{}/chat", "/new", "/sweep/{s}", "/nothing"])
def test_is_whole_at_every_width(browser: Browser, address: str, window: Window, path: str, scheme: str) -> None:
    browser.get(address + path.format(first_run(window), s="20260102T030405Z-news-sweep-abcdef"))
    colour_scheme(browser, scheme)
    said = [{width: found for width in WIDTHS if (found := complaints(browser, width))}]
    if path == "/nothing":  # Chromium writes down every 404
        said = [{width: left for width, one in each.items() if (left := one.keys() - {"console"})} for each in said]
    assert said == [{}]
    assert inaccessible(browser) == []
    assert browser.title != "owned"


def test_a_live_run_is_followed_without_reload(browser: Browser, address: str, window: Window) -> None:
    run = store.create(window.runs_dir, "live")
    run.record["stages"]["train"] = {"status": "running", "fingerprint": "x", "argv": []}
    run.save()
    try:
        browser.get(f"{address}/run/{run.id}")
        browser.execute_script("window.never = 'reloaded'")
        assert all_of(browser, "svg.chart") == []
        write_text(run.folder / "logs/train.log", "step 5 of 60\n")
        write_log(run.folder, 6)
        until(browser, lambda: len(all_of(browser, "svg.chart polyline")) == 2)
        assert len(all_of(browser, "svg.chart circle")) == 1, "the held-out loss"
        assert "step 5 of 60" in browser.find_element("css selector", "#now pre").text
        [slider] = all_of(browser, ".tune input[type=range]")[:1]
        slider.send_keys("\ue014" * 4)
        browser.execute_script("document.activeElement.blur()")
        browser.find_element("css selector", "summary").click()
        write_log(run.folder, 9)
        points = (
            "return document.querySelector('svg.chart polyline:not(.ghost)').getAttribute('points').split(' ').length"
        )
        until(browser, lambda: browser.execute_script(points) == 9)
        until(browser, lambda: len(all_of(browser, "svg.chart .ghost")) >= 1)  # still smoothed
        assert all_of(browser, "details[open]") != [], "still unfolded"
        run.set(status="completed")
        until(browser, lambda: all_of(browser, "main[hx-trigger]") == [])
        assert browser.execute_script("return window.never") == "reloaded"
        assert browser.get_log("browser") == []
    finally:
        shutil.rmtree(run.folder)


def test_a_run_removed_while_shown_is_said(browser: Browser, address: str, window: Window) -> None:
    run = store.create(window.runs_dir, "gone")
    browser.get(f"{address}/run/{run.id}")
    shutil.rmtree(run.folder)
    until(browser, lambda: "there is no run" in browser.find_element("tag name", "main").text)
    assert all_of(browser, "main[hx-trigger]") == []


def test_from_a_cell_to_its_rows(browser: Browser, address: str, window: Window) -> None:
    browser.get(f"{address}/run/{first_run(window)}")
    cell = next(one for one in all_of(browser, "table.matrix a") if one.is_displayed() and one.text == "10")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    cell.click()
    assert browser.find_element("css selector", "output").text == "10 rows"
    assert len(all_of(browser, "#answers tbody tr")) == 10


def test_the_form_and_a_second_browser(
    browser: Browser, address: str, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr("orchestrator.lib.process.start_detached", begun.append)
    browser.get(f"{address}/new")
    field = browser.find_element("name", "train.learning_rate")
    field.clear()
    field.send_keys("0.002")
    browser.find_element("css selector", ".form button").click()
    until(browser, lambda: all_of(browser, ".diff"))
    diff = browser.find_element("css selector", ".diff").text
    assert "-  learning_rate: 5.0e-4" in diff and "+  learning_rate: 0.002" in diff
    write_text(window.project / "spec.yaml", SPEC.replace("# mine", "# edited by somebody else"))
    browser.find_element("css selector", ".go").click()
    until(browser, lambda: "changed meanwhile; nothing was written" in text_of(browser, "main"))
    browser.get(f"{address}/new")
    browser.find_element("css selector", ".form button").click()
    until(browser, lambda: all_of(browser, ".go"))
    browser.find_element("css selector", ".go").click()
    until(browser, lambda: "It goes on when this window is closed" in text_of(browser, "main"))
    assert len(begun) == 1 and "somebody else" in (window.project / "spec.yaml").read_text()
    write_text(window.project / "spec.yaml", SPEC)


def test_two_answers_beside_each_other(
    browser: Browser, address: str, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.ui.talk.Conversation.answer", answer)
    monkeypatch.setattr("orchestrator.serving.artifacts.choose", lambda run, name: name)
    monkeypatch.setattr("orchestrator.serving.artifacts.thinking", lambda run: (None, ("", "")))
    browser.get(f"{address}/run/{first_run(window)}/chat?a=base&b=tuned")
    for turn, words in enumerate(("你好", "again"), 1):
        browser.find_element("name", "text").send_keys(words)
        browser.find_element("css selector", ".chat button").click()
        until(browser, lambda turn=turn: len(all_of(browser, ".turn.model")) == 2 * turn)
    assert [head.text for head in all_of(browser, ".talks h3")] == ["base", "tuned"]
    assert browser.title != "owned" and browser.get_log("browser") == []


def network(browser: Browser, offline: bool) -> None:
    browser.execute_cdp_cmd("Network.enable", {})
    speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": offline, **speed})


def test_a_server_that_is_gone_is_said(browser: Browser, address: str, window: Window) -> None:
    run = store.create(window.runs_dir, "left")
    browser.get(f"{address}/run/{run.id}")
    try:
        network(browser, offline=True)
        away = browser.find_element("id", "away")
        until(browser, away.is_displayed)
        network(browser, offline=False)
        until(browser, lambda: not away.is_displayed())
    finally:
        shutil.rmtree(run.folder)


def test_the_modelfile_has_a_button(browser: Browser, address: str, window: Window) -> None:
    browser.get(f"{address}/run/{first_run(window)}")
    [box] = all_of(browser, ".copied")
    box.find_element("css selector", "button").click()
    until(browser, lambda: box.find_element("css selector", "button").text == "Copied")


def test_the_page_goes_nowhere_else(browser: Browser, address: str, window: Window, tmp_path: Path) -> None:
    browser.get(f"{address}/run/{first_run(window)}")
    names = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert names and all(name.startswith(f"{address}/static/") for name in names if not name.startswith("data:"))
