"""Pages in a real Chromium, opened from disk: charts, filters, keyboard, phones, and nothing hostile comes alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import report
from orchestrator.lib import render
from orchestrator.lib.files import write_json, write_text
from orchestrator.report import write, write_comparison
from orchestrator.runs import store
from orchestrator.runs.compare import side_by_side
from tests.browser import (
    MISSING,
    WHY_MISSING,
    WIDTHS,
    Browser,
    all_of,
    colour_scheme,
    complaints,
    inaccessible,
    printed,
    resize,
    started,
)
from tests.example_runs import HOSTILE, LABELS, make_run, make_sweep, write_log

pytestmark = pytest.mark.skipif(bool(MISSING), reason=WHY_MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as driver:
        yield driver


@pytest.fixture
def open_page(browser: Browser) -> Callable[[Path], Browser]:
    """Open a page from disk at desktop width, with an empty console."""

    def opened(page: Path) -> Browser:
        resize(browser, 1200)
        browser.get_log("browser")
        browser.get(page.resolve().as_uri())
        return browser

    return opened


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("project") / "runs", wrong=range(1, 30, 3), answer=HOSTILE)
    gguf = {f"export/news-{kind}.gguf": "0123456789abcdef" * 4 for kind in ("f16", "q4_k_m")}
    run.set(lineage={"base_model": {"name": "builtin:smollm2-135m-instruct"}, "gguf": gguf})
    write_text(run.folder / "export/Modelfile", f"FROM ./news-f16.gguf\nSYSTEM {HOSTILE}\n")
    write_text(run.folder / "data/train.json", "[\n" + '{"conversations": []},\n' * 12 + "]\n")
    finding = {"kind": "label_conflict", "severity": "error", "message": HOSTILE, "rows": [], "examples": [HOSTILE]}
    write_json(run.folder / "data/findings.json", {"findings": [finding]})
    return write(run.folder)


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(make_sweep(tmp_path_factory.mktemp("project") / "runs", 60, HOSTILE))


def require_harmless(browser: Browser) -> None:
    """Nothing that came from data or a model is an element, or ran."""
    assert all_of(browser, "img") == []
    assert len(all_of(browser, "script")) == 1
    assert browser.title != "owned"
    assert "<script>document.title='owned'</script>" in browser.find_element("tag name", "main").text


def test_a_run_has_its_charts_and_no_complaint(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    assert len(all_of(browser, "svg.chart polyline")) == 2
    assert len(all_of(browser, "svg.chart circle")) == 1  # the only loss on held-out rows
    assert len(all_of(browser, "table.matrix td.diagonal")) == 3 * len(LABELS)
    assert browser.get_log("browser") == []


def test_hostile_output_stays_text(open_page: Callable[[Path], Browser], run_page: Path, sweep_page: Path) -> None:
    require_harmless(open_page(run_page))
    require_harmless(open_page(sweep_page))


def test_without_escaping_that_test_fails_and_the_policy_still_holds(
    open_page: Callable[[Path], Browser], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unescaped(render.Renderer):
        def __init__(self, project: Path) -> None:
            super().__init__(project)
            self._environment.autoescape = False

    monkeypatch.setattr("orchestrator.report.Renderer", Unescaped)
    browser = open_page(write(make_run(tmp_path / "runs", answer=HOSTILE).folder))
    with pytest.raises(AssertionError):
        require_harmless(browser)
    assert all_of(browser, "img") != []
    assert browser.title == "news: completed"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_mistakes_can_be_searched(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    count = browser.find_element("css selector", "[data-filter=mistakes] output")
    assert count.text == "11 of 11 rows"
    browser.find_element("css selector", "[data-filter=mistakes] input").send_keys("headline 14")
    assert count.text == "1 of 11 rows"
    browser.find_element("css selector", "[data-filter=mistakes] input").clear()
    all_of(browser, "[data-filter=mistakes] option")[-1].click()
    assert count.text == "1 of 11 rows"
    assert [row.text.split()[0] for row in all_of(browser, "#mistakes tbody tr") if row.is_displayed()] == ["4"]


def test_charts_are_read_with_the_keyboard(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    chart = all_of(browser, "svg.chart")[0]
    browser.execute_script("arguments[0].focus()", chart)
    assert browser.switch_to.active_element == chart
    browser.switch_to.active_element.send_keys("\ue014")  # the right arrow
    assert browser.find_element("css selector", ".tip").text == "training (5, 2)"
    browser.switch_to.active_element.send_keys("\ue014")
    assert browser.find_element("css selector", ".tip").text == "training (10, 1)"


def test_charts_are_read_with_the_pointer(open_page: Callable[[Path], Browser], sweep_page: Path) -> None:
    from selenium.webdriver import ActionChains

    browser = open_page(sweep_page)
    dot = all_of(browser, "svg.chart circle")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    ActionChains(browser).move_to_element(dot).perform()
    assert browser.find_element("css selector", ".tip").text.startswith("trial ")
    assert len(all_of(browser, "circle.hot")) == 1


def test_everything_that_scrolls_or_reacts_takes_the_focus(
    open_page: Callable[[Path], Browser], run_page: Path
) -> None:
    browser = open_page(run_page)
    found = all_of(browser, ".scroll, svg.chart, summary, input, select")
    assert [element for element in found if element.get_property("tabIndex") < 0] == []


@pytest.fixture(scope="module")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(make_sweep(tmp_path_factory.mktemp("project") / "runs", 6))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["run_page", "sweep_page", "small_sweep"])
def test_is_whole_at_every_width(
    open_page: Callable[[Path], Browser], which: str, scheme: str, request: pytest.FixtureRequest
) -> None:
    browser = open_page(request.getfixturevalue(which))
    colour_scheme(browser, scheme)
    assert {width: found for width in (*WIDTHS, 1920) if (found := complaints(browser, width))} == {}
    assert inaccessible(browser) == []


def test_every_answer_stands_beside_the_others(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    heads = [head.text.split("\n")[0].rstrip(" ↕") for head in all_of(browser, "#answers thead th")]
    assert heads == ["Row", "Prompt", "Expected", "base", "tuned", "gguf-f16"]
    count = browser.find_element("css selector", "[data-filter=answers] output")
    assert count.text == "30 of 30 rows"
    [wanted] = [
        one for one in all_of(browser, "[data-filter=answers] option") if one.text == "gguf-f16 and tuned differ"
    ]
    wanted.click()
    assert count.text == "1 of 30 rows"
    browser.find_element("css selector", "[data-filter=answers] option").click()


def test_tables_are_sorted(open_page: Callable[[Path], Browser], small_sweep: Path) -> None:
    browser = open_page(small_sweep)
    head = all_of(browser, "#ranking thead th")[2]
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        head.find_element("css selector", "button").click()
        values = [float(cell.text.split()[0]) for cell in all_of(browser, "#ranking tbody td:nth-child(3)")]
        assert values == order(values) and len(values) == 6
    assert head.get_attribute("aria-sort") == "descending"


def test_charts_fill_the_width_and_take_a_log_axis(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    chart = all_of(browser, "svg.chart")[0]
    assert chart.size["width"] > 1000
    line = chart.find_element("css selector", "polyline")
    before = line.get_attribute("points")
    smoothing, log = all_of(browser, ".tune input")[:2]
    log.click()
    assert line.get_attribute("points") != before
    assert len(chart.find_elements("css selector", "text.tick.end:not([hidden])")) >= 2
    log.click()
    assert line.get_attribute("points") == before
    smoothing.send_keys("\ue014" * 6)
    assert chart.find_elements("css selector", ".ghost") != [] and line.get_attribute("points") != before
    smoothing.send_keys("\ue012" * 6)
    assert line.get_attribute("points") == before


def test_curves_of_a_sweep_are_told_apart(open_page: Callable[[Path], Browser], sweep_page: Path) -> None:
    browser = open_page(sweep_page)
    curves = all_of(all_of(browser, "svg.chart")[-1], "polyline")
    best = [line for line in curves if "off" not in line.get_attribute("class")]
    looks = {(line.value_of_css_property("stroke"), line.value_of_css_property("stroke-dasharray")) for line in best}
    assert len(looks) == len(best) == 24


def test_a_modelfile_is_copied(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser = open_page(run_page)
    box = browser.find_element("css selector", ".copied")
    box.find_element("css selector", "button").click()
    WebDriverWait(browser, 10).until(lambda _: box.find_element("css selector", "button").text == "Copied")
    assert box.find_element("css selector", "pre").text.startswith("FROM ./news-f16.gguf\nSYSTEM <script>")


def test_print_is_pages(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    colour_scheme(browser, "dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    resize(browser, 720)
    try:
        ink = browser.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--ink')")
        assert ink == "#16191f", "dark only on a screen"
        assert complaints(browser, 720) == {}
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert 2 <= printed(browser).count(b"/Type /Page\n") <= 12


@pytest.mark.parametrize("which", ["run_page", "sweep_page"])
def test_fits_a_phone(open_page: Callable[[Path], Browser], which: str, request: pytest.FixtureRequest) -> None:
    browser = open_page(request.getfixturevalue(which))
    resize(browser, 360)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


def test_print_shows_what_is_folded(open_page: Callable[[Path], Browser], run_page: Path) -> None:
    browser = open_page(run_page)
    assert all_of(browser, "details:not([open])") != []
    browser.execute_cdp_cmd("Page.printToPDF", {})
    assert all_of(browser, "details:not([open])") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_colour_scheme(open_page: Callable[[Path], Browser], run_page: Path, scheme: str) -> None:
    browser = open_page(run_page)
    colour_scheme(browser, scheme)
    ground = browser.find_element("tag name", "body").value_of_css_property("background-color")
    assert ground == {"light": "rgba(246, 247, 249, 1)", "dark": "rgba(15, 18, 23, 1)"}[scheme]


def test_a_sweep_has_its_charts(open_page: Callable[[Path], Browser], sweep_page: Path) -> None:
    browser = open_page(sweep_page)
    charts = all_of(browser, "svg.chart")
    assert [len(chart.find_elements("css selector", "[data-name]")) for chart in charts] == [54, 54, 54, 60]
    assert charts[0].get_attribute("data-x").endswith("log")
    assert charts[1].get_attribute("data-x").endswith("linear")
    all_of(browser, "[data-filter=trials] option")[-1].click()
    assert browser.find_element("css selector", "[data-filter=trials] output").text == "6 of 60 rows"
    assert browser.get_log("browser") == []


def test_runs_side_by_side(open_page: Callable[[Path], Browser], tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs"), make_run(tmp_path / "runs", learning_rate=1e-4)]
    write_comparison(side_by_side(runs), tmp_path / "compared.html")
    browser = open_page(tmp_path / "compared.html")
    assert len(all_of(browser, "svg.chart polyline")) == 2
    assert [cell.text for cell in all_of(browser, "#settings tbody td")] == ["0.0005", "0.0001"]
    assert browser.get_log("browser") == []


def test_an_open_tab_follows_a_run(
    open_page: Callable[[Path], Browser], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    monkeypatch.setattr(report, "REFRESH_SECONDS", 1)
    run = store.create(tmp_path / "runs", "news")
    write_text(run.folder / "spec.yaml", "name: news\n")
    browser = open_page(write(run.folder))
    assert all_of(browser, "svg.chart") == []
    write_log(run.folder, 3)
    write(run.folder)
    WebDriverWait(browser, 20).until(lambda driver: all_of(driver, "svg.chart polyline"))
    browser.find_element("css selector", "section:last-of-type summary, details summary").click()
    opened = "return [...document.querySelectorAll('details')].map((each) => each.open)"
    before = browser.execute_script(opened)
    browser.execute_script("window.unread = true")
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script("return window.unread === undefined"))
    assert True in before and browser.execute_script(opened) == before
    run.set(status="completed")
    write(run.folder)
    WebDriverWait(browser, 20).until(lambda driver: "Finished" in driver.find_element("tag name", "header").text)
    assert all_of(browser, 'meta[http-equiv="refresh"]') == []
