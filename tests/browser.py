"""A real Chromium for tests: started, sized, and asked what is wrong with a page."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Browser = Any
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
WHY_MISSING = f"{MISSING} missing; on Debian: apt-get update && apt-get install -y chromium chromium-driver"
ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1200,900")
WIDTHS = (390, 1100, 1440)
AXE = Path(__file__).parent / "vendored" / "axe.min.js"

CUT = """
    return [...document.querySelectorAll('.scroll')]
        .filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
        .map((box) => `${box.getAttribute('aria-label')}: ${box.scrollWidth} in ${box.clientWidth}`)
"""
OVERLAPS = """
    const boxes = [...document.querySelectorAll('section, header, h1, h2, h3, p, dt, dd, summary, .filter, svg.chart')]
        .filter((one) => one.checkVisibility());
    const found = [];
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
        if (a.contains(b) || b.contains(a)) return;
        const [one, other] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
        const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const high = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        const said = [a, b].map((each) => `${each.tagName} ${each.textContent.slice(0, 30)}`);
        if (wide > 2 && high > 2) found.push(said.join(' / '));
    }));
    return found;
"""


@contextmanager
def started() -> Iterator[Browser]:
    """A driver, ended with the block."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    )
    try:
        yield driver
    finally:
        driver.quit()


def resize(browser: Browser, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def colour_scheme(browser: Browser, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def all_of(browser: Browser, selector: str) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", selector)
    return found


def complaints(browser: Browser, width: int) -> dict[str, list[str]]:
    """What is wrong with the open page at a width: too wide, cut, overlapping, errors in the console; empty when all
    is well."""
    resize(browser, width)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    found = {
        "too wide": [f"{wide} in {width}"] if wide > width else [],
        "cut": browser.execute_script(CUT),
        "overlapping": browser.execute_script(OVERLAPS),
        "console": [entry["message"] for entry in browser.get_log("browser")],
    }
    return {name: lines for name, lines in found.items() if lines}


def inaccessible(browser: Browser) -> list[str]:
    """The violations that axe-core finds on the open page, each with the first element it is about."""
    isolated = {"frameId": browser.execute_cdp_cmd("Page.getFrameTree", {})["frameTree"]["frame"]["id"]}
    world = browser.execute_cdp_cmd("Page.createIsolatedWorld", {**isolated, "worldName": "axe"})["executionContextId"]
    ask = "axe.run().then((found) => found.violations.map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 120)}`))"
    for expression in (AXE.read_text(encoding="utf-8"), ask):
        wanted = {
            "expression": expression,
            "contextId": world,
            "awaitPromise": True,
            "returnByValue": expression == ask,
        }
        answer = browser.execute_cdp_cmd("Runtime.evaluate", wanted)
        assert "exceptionDetails" not in answer, answer
    return list(answer["result"]["value"])


def printed(browser: Browser) -> bytes:
    """The open page as a PDF."""
    return base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
