"""The dashboard in a real browser: where each ramp is, on which evidence; nothing sticks out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from proxy.control.app import build_app
from proxy.control.snapshot import Observer
from proxy.ramp.phases import Event
from proxy.state.orders import Source
from tests.control.ramp_stage import Stage, ramp_config
from tests.support.browser import Browser, browser, find_browser
from tests.support.deadline import wait_for

ADA = Source("ada", "api", "<b>try</b> it", 1)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a browser's page; skip where there is no chromium."""
    path = find_browser()
    if path is None:
        pytest.skip("no chromium on the path")
    with browser(path, tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return a stage with a ramp that is at its first step, and has seen pairs there."""
    found = Stage(ramp_config(tmp_path))
    found.count()
    found.driver.give(found.driver.entries["iris/v2"], Event.START, ADA)
    found.gather()
    found.gather(same=60)
    yield found
    found.close()


@pytest.fixture
def address(stage: Stage) -> Iterator[str]:
    """Serve the admin application of the stage."""
    observer = Observer(stage.config)
    config = uvicorn.Config(build_app(stage.config, observer), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "the admin application")
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()
    observer.close()


def _texts(window: Browser, selector: str) -> list[str]:
    """Return the texts of what is on the page."""
    found = window.value(f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")
    return list(found)


def test_it_shows_place_evidence_and_verdict_of_a_ramp(
    window: Browser, address: str, stage: Stage
) -> None:
    """And follows it by itself; what people wrote stays text."""
    window.complaints.clear()
    window.open(address)
    wait_for(lambda: _texts(window, "article h3"), "the ramp")
    assert _texts(window, "article h3") == ["iris/v2"]
    assert _texts(window, "article header span") == ["stepping step 1 of 2 at 25%"]
    assert _texts(window, ".way li") == ["shadow", "25%", "100%"]
    assert _texts(window, ".way .here") == ["25%"]
    assert _texts(window, "article td")[:3] == ["availability", "continue", "60"]
    assert "of 20" in _texts(window, "article td")[-2]
    assert "60 pairs (at least 100)" in _texts(window, "article p")[0]
    assert "waits: continue: availability: undecided" in _texts(window, "article p")
    wait_for(lambda: "<b>try</b> it" in _texts(window, "#decisions td"), "the decisions")
    stage.count(worse=400)
    stage.tick()
    wait_for(lambda: _texts(window, "article header span") == ["rolled back"], "the fall")
    assert _texts(window, ".way .here") == []
    assert "because: availability: worse_than_margin, by ramp" in _texts(window, "article p")
    assert window.complaints == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_the_window(window: Browser, address: str, width: int) -> None:
    """Of a phone, too; only wide tables scroll, each in its own place."""
    window.set_width(width)
    window.open(address)
    wait_for(lambda: _texts(window, "article td"), "the gates")
    assert window.value("document.documentElement.scrollWidth") <= width
