"""Takes the pictures of docs/reports.md anew: `python scripts/screenshots.py [RUN] [--runs-dir DIR]`.

The run's single page and the window's pages, in Chromium, which Debian's packages `chromium` and `chromium-driver`
bring; without a run, the newest one.
"""

from __future__ import annotations

import base64
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from orchestrator.report import write
from orchestrator.runs import store

PICTURES = Path(__file__).parent.parent / "docs" / "img"
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
KEY = "screenshots"
TALLEST = 1400


@contextmanager
def browser(width: int) -> Iterator[Any]:
    """Chromium at a width, ended with the block."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    size = {"width": width, "height": TALLEST, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def window(runs_dir: Path) -> Iterator[str]:
    """The address of a window over the runs, its key included; ended with the block."""
    import uvicorn

    from orchestrator.ui.app import application
    from orchestrator.ui.pages import Window

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = application(Window(runs_dir.parent, runs_dir), KEY, port)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def take(driver: Any, url: str, name: str, at: str = "") -> None:
    """Write the picture of a page, from the section that a heading names on."""
    driver.get(url)
    if at:
        heading = driver.find_element("xpath", f"//h2[starts-with(normalize-space(), '{at}')]")
        driver.execute_script("arguments[0].scrollIntoView()", heading)
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.png").write_bytes(base64.b64decode(shot))
    click.echo(f"docs/img/{name}.png")


@click.command()
@click.argument("which", required=False)
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs")
def main(which: str | None, runs_dir: Path) -> None:
    """Write docs/img/*.png."""
    run = store.find(runs_dir.resolve(), which)
    page = write(run.folder).as_uri()
    with browser(1100) as driver, window(run.folder.parent) as address:
        take(driver, page, "report")
        take(driver, page, "mistakes", "Worst mistakes")
        take(driver, page, "answers", "Every answer")
        driver.get(f"{address}/?key={KEY}")
        take(driver, f"{address}/", "ui-runs")
        take(driver, f"{address}/run/{run.id}", "ui-run")
        take(driver, f"{address}/new", "ui-new")


if __name__ == "__main__":
    sys.exit(main())
