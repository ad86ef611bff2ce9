"""The pages in a real browser: what a reader sees, presses and asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plusx import Run
from plusx.jobs.report import write_report
from plusx.jobs.report_pair import write_pair

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LIGHT, DARK, PHONE = (1200, "light"), (1200, "dark"), (360, "light")


@pytest.fixture(scope="module")
def pages(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {
        "one": write_report(finished.path, out=folder / "one.html"),
        "bare": write_report(finished.path, thumbnails=False, out=folder / "bare.html"),
        "pair": write_pair(finished.path, finished.path, out=folder / "pair.html"),
    }


class Look:
    """A page as it was opened: what it asked for, and what it complained of."""

    def __init__(self, browser: Browser, path: Path, view: tuple[int, str]) -> None:
        width, scheme = view
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.url = path.resolve().as_uri()
        self.page.goto(self.url)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()


@pytest.mark.parametrize("name", ["one", "bare", "pair"])
@pytest.mark.parametrize("view", [LIGHT, DARK, PHONE])
def test_a_page_is_quiet_accessible_and_fits(
    browser: Browser,
    pages: dict[str, Path],
    name: str,
    view: tuple[int, str],
    serious: Callable[[Page], list[str]],
) -> None:
    look = Look(browser, pages[name], view)
    with look as page:
        assert [url for url in look.asked if not url.startswith("data:")] == [look.url]
        assert look.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for details in page.query_selector_all("details"):
            details.evaluate("one => { one.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious(page) == []


def test_a_table_sorts_by_keyboard_and_says_so(browser: Browser, pages: dict[str, Path]) -> None:
    with Look(browser, pages["one"], LIGHT) as page:
        table = page.locator("table.sortable")
        head = table.locator("thead th").nth(1)

        def column(number: int) -> list[float]:
            cells = table.locator("tbody tr").all()
            return [float(row.locator("th, td").nth(number).get_attribute("data-v") or "nan")
                    for row in cells]  # fmt: skip

        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(1) == sorted(column(1))
        assert "Sorted by precision" in page.locator("[role=status]").inner_text()
        page.keyboard.press("Space")
        assert head.get_attribute("aria-sort") == "descending"
        assert column(1) == sorted(column(1), reverse=True)
        table.locator("thead th").nth(0).locator("button").click()
        assert head.get_attribute("aria-sort") is None
        names = [row.locator("th").inner_text() for row in table.locator("tbody tr").all()]
        assert names == sorted(names)


def test_without_scripts_the_table_is_plain(browser: Browser, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["one"].resolve().as_uri())
    assert page.locator("table.sortable tbody tr").count() == 2
    assert page.locator("button").count() == 0
    assert not page.locator(".sorts").is_visible()
    context.close()


def test_in_print_everything_folded_is_open(browser: Browser, pages: dict[str, Path]) -> None:
    with Look(browser, pages["one"], LIGHT) as page:
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert len(page.pdf()) > 20_000
