"""The HTML report in a real browser: nothing complains, nothing is fetched, nothing sticks out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.html import html_of
from tests.analysis.reports.test_forms import EVIL
from tests.support.browser import Browser, browser, find_browser
from tests.support.findings import findings, hostile


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a browser's page; skip where there is no chromium."""
    path = find_browser()
    if path is None:
        pytest.skip("no chromium on the path")
    with browser(path, tmp_path_factory.mktemp("browser")) as found:
        yield found


def opened(window: Browser, folder: Path, evil: str = "") -> str:
    """Open the report of the example, with `evil` in all its values, and return its address."""
    path = folder / "report.html"
    path.write_text(html_of(page_of(hostile(findings(), evil))))
    window.requests.clear()
    window.complaints.clear()
    window.open(path.as_uri())
    return path.as_uri()


@pytest.mark.parametrize("evil", ["", EVIL], ids=["sound", "hostile"])
def test_it_complains_of_nothing_and_fetches_nothing(
    window: Browser, tmp_path: Path, evil: str
) -> None:
    """Whatever the values are; not even a script of a hostile answer is refused: there is none."""
    address = opened(window, tmp_path, evil)
    assert window.requests == [address]
    assert window.complaints == []
    assert window.value("document.scripts.length") == 0
    assert window.value("document.images.length") == 0


def test_all_sections_are_there(window: Browser, tmp_path: Path) -> None:
    """As the browser understands the page."""
    opened(window, tmp_path)
    page = page_of(findings())
    headings = window.value("[...document.querySelectorAll('h3')].map(h => h.textContent)")
    assert headings == [section.title for each in page.candidates for section in each.sections]
    names = window.value("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert names == [*(each.name for each in page.candidates), "Data health"]
    assert window.value("[...document.querySelectorAll('svg')].every(s => s.clientHeight > 60)")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("evil", ["", "W" * 300], ids=["usual", "long-words"])
def test_it_fits_the_window(window: Browser, tmp_path: Path, width: int, evil: str) -> None:
    """Of a phone, too; only wide tables scroll, each in its own place."""
    window.set_width(width)
    opened(window, tmp_path, evil)
    assert window.value("document.documentElement.scrollWidth") <= width


def test_words_in_drawings_do_not_run_into_each_other(window: Browser, tmp_path: Path) -> None:
    """Nor out of the drawing; at the size of a phone, where they are largest."""
    window.set_width(375)
    opened(window, tmp_path)
    found = window.value("""[...document.querySelectorAll('svg')].flatMap(svg => {
      const frame = svg.getBoundingClientRect();
      const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
      const out = boxes.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1);
      const over = boxes.filter(([, a], i) => boxes.some(([, b], j) => i < j && a.left < b.right &&
        b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom));
      return [...out, ...over].map(([text]) => text);
    })""")
    assert found == []


def test_folded_parts_are_printed(window: Browser, tmp_path: Path) -> None:
    """Paper cannot be clicked."""
    opened(window, tmp_path)
    is_seen = "[...document.querySelectorAll('details *')].filter(e => e.checkVisibility()).length"
    on_screen = window.value(is_seen)
    window.call("Emulation.setEmulatedMedia", media="print")
    on_paper = window.value(is_seen)
    window.call("Emulation.setEmulatedMedia", media="")
    assert on_paper > 10 * on_screen
    document = base64.b64decode(window.call("Page.printToPDF")["data"])
    assert document.startswith(b"%PDF")
