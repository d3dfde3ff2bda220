"""The terminal and Markdown forms, whole, against golden files, and what hostile values become.

`UNDERSTUDY_WRITE_GOLDEN=1` writes the golden files anew; read the difference before committing it.
"""

from __future__ import annotations

import io
import os
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.html import html_of
from proxy.analysis.reports.markdown import escaped, markdown_of
from proxy.analysis.reports.terminal import render
from tests.support.findings import findings, hostile

HERE = Path(__file__).parent
#: Elements that do something by being there.
ACTIVE = {"script", "img", "iframe", "object", "embed", "link", "form", "base", "b", "a"}
EVIL = (
    "</script></title></pre></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}"
)


def on_terminal(document: object, width: int = 80) -> str:
    """Return the report as a file would get it."""
    out = io.StringIO()
    assert isinstance(document, dict)
    render(page_of(document), Console(file=out, width=width))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


class Elements(HTMLParser):
    """Collects the elements of a page and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize("form", ["txt", "md"])
def test_a_report_is_what_it_was(form: str) -> None:
    """Letter by letter."""
    document = findings()
    text = on_terminal(document, 100) if form == "txt" else markdown_of(page_of(document))
    golden = HERE / f"golden.{form}"
    if os.environ.get("UNDERSTUDY_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """However narrow it is."""
    assert max(map(len, on_terminal(findings(), width).splitlines())) <= width


def test_names_from_outside_cannot_write_to_the_terminal() -> None:
    """Neither escape sequences nor rich's own markup."""
    text = on_terminal(hostile(findings(), "\x1b[2J[bold red]x[/]\r\u202e"), 200)
    assert not {"\x1b", "\r", "\u202e"} & set(text)
    assert "\\x1b[2J[bold red]x[/]\\r\\u202e" in text


def test_names_from_outside_become_no_markdown() -> None:
    """No HTML, link, image, mention, formula, code or table; no fence is ended."""
    evil = "<img src=x>|![a](http://e.com) @all $x$ `c` **b**\n```\n# head www.e.com "
    text = markdown_of(page_of(hostile(findings(), evil)))
    outside = [
        part for n, part in enumerate(text.replace("````diff", "````").split("````")) if n % 2 == 0
    ]
    for bad in ("<img", "http://", "www.", "@all", "\n# head", " $x$", " `c`", " **b**"):
        assert not any(bad in part for part in outside), bad
    assert text.count("\n```\n") == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [("# a", "&#35; a"), ("1. a", "1&#46; a"), ("- a", "&#45; a"), ("a-b 1.5", "a-b 1.5"),
     ("a|b\nc", "a\\|b c"), ("-0.1%", "-0.1%")],
)  # fmt: skip
def test_markdown_shows_text_as_it_is(value: str, shown: str) -> None:
    """Also at the beginning of a line."""
    assert escaped(value) == shown


def test_html_holds_nothing_active_whatever_the_values_say() -> None:
    """Every value is escaped, in text, attributes and drawings; templates in values are text."""
    safe, evil = html_of(page_of(findings())), html_of(page_of(hostile(findings(), EVIL)))
    assert ACTIVE & {*Elements(safe).tags} == {"a"}
    assert ACTIVE & {*Elements(evil).tags} == {"a"}
    targets = {value for name, value in Elements(evil).attributes if name in ("href", "src")}
    assert targets == {"#c1", "#c2", "#c3"}
    assert not any(name.startswith("on") for name, _ in Elements(evil).attributes)
    assert "{{7*7}}" in evil
    assert "<script" not in evil


def test_html_is_one_small_file_that_needs_nothing_else() -> None:
    """A usual report is a fifth of what mail servers take."""
    text = html_of(page_of(findings()))
    assert len(text.encode()) < 150_000
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_html_can_be_read_aloud() -> None:
    """Headings descend one by one, tables have heads, drawings say in words what they show."""
    found = Elements(html_of(page_of(findings())))
    levels = [int(tag[1]) for tag in found.tags if tag in ("h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert found.tags.count("caption") == found.tags.count("table")
    assert found.tags.count("desc") == found.tags.count("svg") > 5
    named = [value for name, value in found.attributes if name == "id"]
    assert len(named) == len(set(named))
    labels = [value for name, value in found.attributes if name == "aria-labelledby"]
    assert {part for label in labels if label for part in label.split()} <= {*named}


def test_control_characters_in_answers_are_made_visible() -> None:
    """Text that runs backwards looks like another."""
    document = findings()
    document["candidates"][0]["worst"][0]["primary"] = "a\u202eb\x00c"
    text = html_of(page_of(document))
    assert "a\\u202eb\\x00c" in text.replace("<del>", "").replace("</del>", "")
