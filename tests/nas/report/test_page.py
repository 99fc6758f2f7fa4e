"""The page in a real browser: drawn without a complaint, usable by pointer, by keyboard and without scripts."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from nas.report.making import write_report
from nas.report.parts import Chart, Line, Missing, Report, Section, Table, escaped
from tests.command_line import nas_here, succeed

OTHER = "kit:target=phone"
_QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@dataclass
class Visit:
    """A page that was opened, and what went wrong in it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Take down what goes wrong from now on, and what is loaded."""

        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.problems.append(message.text)

        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def plots(self) -> list[str]:
        """Return the names of the plots that are drawn where one can see them."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.plot')].filter(e => e.offsetParent && e.querySelector('.main-svg'))"
            ".map(e => e.id)"
        )
        return found

    def drawn(self) -> list[str]:
        """Return the ids of the networks that one can see."""
        shown: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.network')].filter(e => e.offsetParent).map(e => e.dataset.network)"
        )
        return shown


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, as it is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser, such as Debian's package chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=list(_QUIET))
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(searched_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with fronts of two devices, one of them without a table."""
    run = shutil.copytree(searched_run, tmp_path_factory.mktemp("page") / "run")
    kept = json.loads((run / "front.json").read_text())
    other = json.loads(json.dumps(kept["fronts"]["cpu"]))
    other["device"] = OTHER
    kept["fronts"][OTHER] = other
    (run / "front.json").write_text(json.dumps(kept))
    succeed(nas_here("report", "--run", run, "--json"))
    return run / "report.html"


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Callable[..., Visit]]:
    """Opens the report as a browser of some kind would."""
    contexts = []

    def opened(width: int = 1280, height: int = 900, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        seen = Visit(context.new_page())
        seen.listen()
        seen.page.goto(report.as_uri())
        return seen

    yield opened
    for context in contexts:
        context.close()


def test_every_plot_is_drawn_without_a_complaint_or_a_connection(visit: Callable[..., Visit], report: Path) -> None:
    seen = visit()
    charts = json.loads(seen.page.locator("#charts").text_content() or "")
    hidden = {each["name"] for each in charts if each["name"].endswith("-1")}  # of the other device
    assert set(seen.plots()) == {each["name"] for each in charts} - hidden
    assert len(seen.plots()) >= 10
    assert seen.problems == []
    assert seen.requests == [report.as_uri()]
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_point_that_is_clicked_is_the_network_that_is_drawn(visit: Callable[..., Visit]) -> None:
    seen = visit()
    ids = seen.page.locator(".choice >> visible=true").locator("input").evaluate_all("all => all.map(e => e.value)")
    wanted = ids[0]
    assert seen.drawn() != [wanted]
    place = seen.page.evaluate(
        """id => {
            const plot = document.getElementById("front-0"), box = plot.getBoundingClientRect();
            const trace = plot.data.find(each => each.name === "front, validated");
            const at = trace.customdata.indexOf(id), {xaxis, yaxis} = plot._fullLayout;
            return [box.x + xaxis._offset + xaxis.l2p(trace.x[at]), box.y + yaxis._offset + yaxis.l2p(trace.y[at])];
        }""",
        wanted,
    )
    seen.page.mouse.move(*place)
    seen.page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    hover = seen.page.locator("#front-0 .hoverlayer").text_content() or ""
    assert wanted in hover
    assert "stem" in hover
    seen.page.mouse.click(*place)
    assert seen.drawn() == [wanted]
    assert seen.page.locator(f"input[value='{wanted}']").first.is_checked()
    assert seen.problems == []


def test_networks_are_selected_by_keyboard(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"
    radios = seen.page.locator(".choice >> visible=true").locator("input")
    ids = radios.evaluate_all("all => all.map(e => e.value)")
    radios.first.focus()
    seen.page.keyboard.press("Space")
    assert seen.drawn() == [ids[0]]
    seen.page.keyboard.press("ArrowDown")
    assert seen.drawn() == [ids[1]]
    marked = "document.getElementById('front-0').data.find(each => each.name === 'selected').x.length"
    assert seen.page.evaluate(marked) == 1


def test_other_costs_can_stand_on_the_axis(visit: Callable[..., Visit]) -> None:
    seen = visit()
    select = seen.page.locator("select.axis >> visible=true")
    assert select.locator("option").all_text_contents()[:3] == ["latency ms", "MMACs", "params k"]
    budget = "document.querySelectorAll('#front-0 .shapelayer path').length"
    assert seen.page.evaluate(budget) == 1
    select.select_option(label="MMACs")
    assert seen.page.evaluate("document.getElementById('front-0')._fullLayout.xaxis.title.text") == "MMACs"
    assert seen.page.evaluate(budget) == 0
    assert seen.problems == []


def test_devices_are_switched_between(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.get_by_label(OTHER, exact=True).check()
    assert "front-1" in seen.plots()
    assert "front-0" not in seen.plots()
    assert len(seen.drawn()) == 1
    assert seen.page.get_by_text(f"The latency table of {OTHER}").is_visible()
    assert seen.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_and_its_plots_are_light_or_dark(visit: Callable[..., Visit], scheme: str) -> None:
    seen = visit(color_scheme=scheme)
    page = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = seen.page.evaluate("document.getElementById('front-0')._fullLayout.font.color")
    assert (_brightness(page) < 64) == (scheme == "dark")
    assert (_brightness(ink) > 192) == (scheme == "dark")
    seen.page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    seen.page.wait_for_function("ink => document.getElementById('front-0')._fullLayout.font.color !== ink", arg=ink)


def _brightness(colour: str) -> float:
    if colour.startswith("#"):
        return sum(int(colour[at : at + 2], 16) for at in (1, 3, 5)) / 3
    return sum(int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]) / 3


def test_a_phone_scrolls_down_and_not_aside(visit: Callable[..., Visit]) -> None:
    seen = visit(390, 844)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(seen.plots()) >= 10
    assert seen.problems == []


def test_without_scripts_all_figures_are_there(visit: Callable[..., Visit]) -> None:
    seen = visit(java_script_enabled=False)
    assert seen.page.locator(".network").count() == seen.page.locator(".network >> visible=true").count() > 0
    assert seen.page.locator("summary >> visible=true").count() >= 10


def test_texts_of_users_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    text = "<b>a</b></script><img src=x onerror=alert(1)> & =1"
    trace = {"type": "bar", "name": text, "x": [text, "other"], "y": [1, 2], "hovertext": [escaped(text)] * 2}
    table = Table(name="table", title=text, columns=(text, "n"), rows=((text, 1), ("=1+1", 2)))
    layout = {"showlegend": True}
    chart = Chart(name="chart", title=text, alt=text, traces=(trace,), layout=layout, table=table)
    parts = (Line(text=text), Missing(what=text, command=text), chart, replace(table, name="other"))
    section = Section(name="section", title=text, about=text, parts=parts)
    made = Report(title=text, subtitle=text, devices=(text,), sections=(section,))
    tables = write_report(made, tmp_path / "report.html")
    context = browser.new_context()
    seen = Visit(context.new_page())
    seen.listen()
    seen.page.goto((tmp_path / "report.html").as_uri())
    seen.page.wait_for_selector("#chart .legendtext")
    assert seen.page.locator("#chart .legendtext").first.text_content() == text
    assert text in seen.page.locator("#chart .xtick text").all_text_contents()
    assert seen.page.locator("h1").text_content() == text
    assert seen.page.locator("img").count() == 0
    assert seen.problems == []
    context.close()
    assert tables[0].read_text().splitlines()[2] == "'=1+1,2"  # no formula for spreadsheets


def test_everything_has_a_name_for_those_who_do_not_see_it(visit: Callable[..., Visit]) -> None:
    seen = visit()
    unnamed = seen.page.evaluate(
        "[...document.querySelectorAll('img:not([alt]), [role=img]:not([aria-label]), svg.shape:not([aria-hidden])')]"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
    labels = seen.page.evaluate(
        "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).map(e => e.outerHTML)"
    )
    assert labels == []
    levels = seen.page.locator("h1, h2, h3").evaluate_all("all => all.map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
