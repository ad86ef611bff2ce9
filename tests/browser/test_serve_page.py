"""The page of ``plusx serve`` as a person uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plusx import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SERVED = ("{run}", "--port", "0", "--threads", "1")


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    pytest.importorskip("fastapi", reason="extra 'serve' absent")
    command = [sys.executable, "-m", "plusx", "serve", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    return process, line.split(" at ")[1].split()[0]


@pytest.fixture(scope="module")
def url(finished: Run) -> Iterator[str]:
    process, found = started(*(part.format(run=finished.path) for part in SERVED))
    yield found
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture
def three(photos: Path, tmp_path: Path) -> list[Path]:
    """Two photographs and a file that is none."""
    broken = tmp_path / "=broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    good = [sorted((photos / "val" / name).iterdir())[0] for name in ("across", "upright")]
    return [good[0], broken, good[1]]


def opened(browser: Browser, url: str, width: int, scheme: str) -> tuple[Page, list[str]]:
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    said: list[str] = []
    base = url.removesuffix("/docs")
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: said.append(one.url) if outside(one.url, base) else None)
    page.goto(url)
    return page, said


def outside(asked: str, url: str) -> bool:
    return not asked.startswith((url, "data:", f"blob:{url}"))


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_three_images_one_of_them_broken(
    browser: Browser,
    url: str,
    three: list[Path],
    tmp_path: Path,
    serious: Callable[[Page], list[str]],
    width: int,
    scheme: str,
) -> None:
    page, said = opened(browser, url, width, scheme)
    page.get_by_text("2 classes").wait_for()
    page.set_input_files("#files", three)
    page.get_by_text("2 images classified, 1 without an answer").wait_for()
    cards = page.locator(".card")
    assert cards.count() == 3
    assert cards.nth(1).locator(".verdict").inner_text() == "No answer"
    assert cards.nth(0).locator(".bars li").count() == 2
    picture = cards.nth(0).locator("img")
    before = picture.get_attribute("src")
    cards.nth(0).get_by_role("button", name="Show where it looked").click()
    cards.nth(0).get_by_role("button", name="Show the image").wait_for()
    assert str(picture.get_attribute("src")).startswith("data:image/png;base64,")
    assert "brighter where" in str(picture.get_attribute("alt"))
    cards.nth(0).get_by_role("button", name="Show the image").click()
    assert picture.get_attribute("src") == before
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    download.value.save_as(tmp_path / "found.csv")
    lines = (tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(three[0].name)
    assert lines[2].startswith("'=broken.png,,,,,")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    assert said == []
    page.get_by_role("button", name="Clear").click()
    assert cards.count() == 0
    page.close()


def test_it_works_by_keyboard_alone(browser: Browser, url: str) -> None:
    page, _ = opened(browser, url, 1200, "light")
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.href"))
    assert "files" in reached
    assert "camera" in reached
    page.close()


def test_the_description_of_the_api(
    browser: Browser, url: str, serious: Callable[[Page], list[str]]
) -> None:
    page, said = opened(browser, f"{url}/docs", 1200, "light")
    page.get_by_role("heading", name="POST /v1/predict").wait_for()
    assert serious(page) == []
    assert said == []
    page.close()


def test_a_key_is_asked_for(
    browser: Browser, finished: Run, three: list[Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-this-test\n")
    run = (part.format(run=finished.path) for part in SERVED)
    process, url = started(*run, "--api-key-file", str(keys))
    page, _ = opened(browser, url, 1200, "light")
    page.get_by_label("API key").fill("a-key-of-this-test")
    page.get_by_role("button", name="Use it").click()
    page.get_by_text("2 classes").wait_for()
    page.set_input_files("#files", three[:1])
    page.get_by_text("1 image classified").wait_for()
    page.close()
    process.terminate()
    assert process.wait(30) == 0


def test_a_server_that_takes_few_at_once(browser: Browser, finished: Run, photos: Path) -> None:
    """What is too much together goes one by one; a server that is gone is said for each."""
    run = (part.format(run=finished.path) for part in SERVED)
    process, url = started(*run, "--max-images", "2")
    page, _ = opened(browser, url, 390, "light")
    page.get_by_text("2 classes").wait_for()
    page.set_input_files("#files", sorted((photos / "val" / "across").iterdir())[:8])
    page.get_by_text("8 images classified").wait_for()
    process.terminate()
    assert process.wait(30) == 0
    page.set_input_files("#files", sorted((photos / "val" / "upright").iterdir())[:3])
    page.get_by_text("8 images classified, 3 without an answer").wait_for()
    assert page.get_by_text("The server cannot be reached").count() == 3
    page.close()
