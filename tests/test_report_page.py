"""The report page in a real browser: it draws, sorts, adapts and prints, and makes no network requests."""

from __future__ import annotations

import shutil
import time
from itertools import pairwise

import pytest

from _report_cells import write_report_files
from barcast.paths import Paths
from barcast.report.page import render
from barcast.report.read_page import read_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FEW = ["prior", "logistic", "xgboost", "lightgbm", "lstm"]
MANY = [*FEW, "catboost", "nhits", "tft", "patchtst", "gru", "transformer"]
MEGABYTE = 1_000_000


def build(root, models, horizons):
    results = write_report_files(root, models, horizons)
    file = root / "index.html"
    file.write_text(render(read_page(Paths(root), results)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return build(tmp_path_factory.mktemp("page"), FEW, [5, 20])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        profile = str(tmp_path_factory.mktemp("profile"))
        size = {"width": 1280, "height": 900}
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=SWITCHES, viewport=size
        )
        yield context
        context.close()


class Recorded:
    """A page, its console messages and its requests."""

    def __init__(self, browser):
        self.page = browser.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, file):
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html.ready", state="attached")
        return self.page

    def settle(self):
        """Wait until every started figure is drawn."""
        self.page.wait_for_function("[...document.querySelectorAll('.plot:has(div)')].every(p => p.matches('.drawn'))")


@pytest.fixture
def recorded(browser):
    recorded = Recorded(browser)
    yield recorded
    recorded.page.close()


def shot(page, tmp_path, name):
    """A screenshot among pytest's files, to look at."""
    page.screenshot(path=str(tmp_path / f"{name}.png"))


def drawn(page):
    return page.locator(".plot.drawn svg").count()


def test_every_figure_is_drawn_without_messages_or_requests(recorded, file, tmp_path):
    page = recorded.open(file)
    page.evaluate("barcast.drawAll()")
    page.wait_for_function(
        "document.querySelectorAll('.plot').length === document.querySelectorAll('.plot.drawn').length"
    )
    figures = page.locator(".plot")
    assert figures.count() == drawn(page) > 50
    marks = ", ".join(f".mark-{kind} > *" for kind in ("line", "symbol", "rule", "rect", "area"))
    assert min(page.eval_on_selector_all(".plot", f"all => all.map(p => p.querySelectorAll('{marks}').length)")) > 0
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.plot path')].filter(p => /NaN|undefined/.test(p.getAttribute('d'))).length"
        )
        == 0
    )
    assert recorded.messages == []
    assert [url for url in recorded.requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    shot(page, tmp_path, "light")


def test_figures_are_drawn_when_they_come_into_view(recorded, file):
    page = recorded.open(file)
    page.wait_for_selector("#h5 .plot.drawn")
    cell = page.locator("#xgboost_h5")
    assert cell.locator("svg").count() == 0
    cell.locator("summary").click()
    cell.locator(".plot.drawn").first.wait_for()
    assert page.locator("#xgboost_h20 svg").count() == 0


def test_each_network_of_a_cell_has_its_own_learning_curve(recorded, file):
    page = recorded.open(file)
    page.locator("#lstm_h5 summary").click()
    plot = page.locator('#lstm_h5 .plot.drawn[data-figure="learning"]')
    plot.wait_for()
    assert plot.locator(".mark-line path").count() == 2 * 3, "train and validation of three networks"
    assert plot.locator(".mark-symbol path").count() == 3
    plot.locator(".mark-symbol path").nth(1).hover()
    assert page.locator("#tip").inner_text().startswith("network 2\nepoch ")


def test_a_link_opens_its_cell(recorded, file):
    page = recorded.open(file)
    page.locator("#h20 .ranked a", has_text="lightgbm").click()
    page.wait_for_selector("#lightgbm_h20[open]")


def column(page, key):
    at = page.locator(f"#h5 .ranked thead th.{key}").evaluate("th => [...th.parentNode.children].indexOf(th)")
    return page.eval_on_selector_all(
        "#h5 .ranked tbody tr", f"rows => rows.map(row => row.children[{at}].dataset.sort)"
    )


def sorting(page):
    return page.eval_on_selector_all("#h5 .ranked th", "all => all.map(th => th.ariaSort).filter(Boolean)")


def test_a_click_sorts_a_column_and_a_second_one_reverses_it(recorded, file):
    page = recorded.open(file)
    assert sorting(page) == ["ascending"]
    assert column(page, "rank") == ["1", "2", "3", "4", "5"]
    button = page.locator("#h5 .ranked th.sharpe button")
    button.click()
    rising = [float(value) for value in column(page, "sharpe") if value]
    assert rising == sorted(rising)
    assert column(page, "sharpe")[-1] == "", "undefined values come last"
    button.click()
    falling = [float(value) for value in column(page, "sharpe") if value]
    assert falling == sorted(rising, reverse=True)
    assert column(page, "sharpe")[-1] == ""
    assert sorting(page) == ["descending"]
    assert page.locator("#status").inner_text() == "sorted by Sharpe, descending"


def test_the_keyboard_sorts_too_and_focus_is_visible(recorded, file):
    page = recorded.open(file)
    page.locator("#h5 .ranked th.rank button").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert column(page, "model") == sorted(FEW)
    page.keyboard.press("Space")
    assert column(page, "model") == sorted(FEW, reverse=True)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert column(page, "rank") == ["1", "2", "3", "4", "5"]


def test_dark_and_light_follow_the_system_without_redrawing(recorded, file, tmp_path):
    page = recorded.open(file)
    page.wait_for_selector("#h5 .plot.drawn")
    style = "getComputedStyle(document.querySelector('{}'))".format
    look = f"[{style('body')}.backgroundColor, {style('#h5 .plot text')}.fill]"
    light = page.evaluate(look)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(look)
    assert light == ["rgb(246, 246, 243)", "rgb(90, 97, 107)"]
    assert dark == ["rgb(18, 20, 23)", "rgb(164, 171, 181)"]
    shot(page, tmp_path, "dark")


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_screen_scrolls_tables_and_never_the_page(recorded, file, tmp_path, width):
    page = recorded.page
    page.set_viewport_size({"width": width, "height": 740})
    recorded.open(file)
    page.locator("#xgboost_h5 summary").click()
    page.locator("#xgboost_h5 .plot.drawn").first.wait_for()
    page.evaluate("barcast.drawAll()")
    recorded.settle()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    board = page.locator("#h5 .scroll").first
    assert board.evaluate("box => box.scrollWidth > box.clientWidth")
    too_wide = "all => all.filter(svg => svg.getBoundingClientRect().right > innerWidth).length"
    assert page.eval_on_selector_all(".plot svg", too_wide) == 0
    shot(page, tmp_path, f"narrow-{width}")
    assert recorded.messages == []


def test_print_is_open_drawn_and_light(recorded, file, tmp_path):
    page = recorded.open(file)
    page.emulate_media(color_scheme="dark")
    page.evaluate("addEventListener('beforeprint', () => (window.open = document.querySelectorAll('[open]').length))")
    page.evaluate(
        "addEventListener('afterprint', () => (window.drawn = document.querySelectorAll('.plot svg').length))"
    )
    closed = page.locator("details").count()
    page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(20, 23, 28)"
    assert page.evaluate("[window.open, window.drawn]") == [closed, page.locator(".plot").count()]
    assert page.locator("details[open]").count() == 0, "closed again after printing"
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_screen_reader_finds_landmarks_headings_and_a_label_per_figure(recorded, file):
    page = recorded.open(file)
    assert page.locator("body > header, body > main, header nav[aria-label]").count() == 3
    labels = page.eval_on_selector_all(".plot", "all => all.map(p => p.getAttribute('role') + p.ariaLabel)")
    assert all(label.startswith("img") and len(label) > 30 for label in labels)
    levels = [int(tag[1]) for tag in page.eval_on_selector_all("h1, h2, h3", "all => all.map(h => h.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert (
        page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")
        == page.locator("[id]").count()
    )
    targets = page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href').slice(1))")
    assert page.evaluate("ids => ids.every(id => document.getElementById(id))", targets)
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("table.ranked caption").count() == page.locator("table.ranked").count()


def test_eleven_models_at_four_horizons_stay_small(recorded, tmp_path, record_property):
    file = build(tmp_path, MANY, [5, 20, 60, 120])
    assert file.stat().st_size < 5 * MEGABYTE
    started = time.monotonic()
    page = recorded.open(file)
    page.wait_for_selector("#h5 .plot.drawn")
    record_property("seconds_to_first_figure", round(time.monotonic() - started, 2))
    record_property("megabytes", round(file.stat().st_size / MEGABYTE, 2))
    assert page.locator("details.cell").count() == 44
    assert drawn(page) < 20, "figures out of view are not drawn yet"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    shot(page, tmp_path, "many")
    assert recorded.messages == []
