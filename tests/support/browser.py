"""A real browser without a window, steered by its own protocol: chromium, where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of a chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser, with everything that it loaded and complained about.

    Attributes:
        requests: addresses that the page asked for.
        complaints: of the console, of the log, and exceptions.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._loaded: set[str] = set()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what the browser answers to a command."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(command))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def open(self, url: str) -> None:
        """Load a page and wait until all of it is there, not of the page before."""
        loader = self.call("Page.navigate", url=url)["loaderId"]
        while loader not in self._loaded:
            self._receive()

    def value(self, expression: str) -> Any:
        """Return what a script of the test's, not of the page's, finds."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def set_width(self, width: int) -> None:
        """Make the window so wide, in CSS pixels."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=PATIENCE_S))
        method, parameters = message.get("method", ""), message.get("params", {})
        if method == "Page.lifecycleEvent" and parameters["name"] == "load":
            self._loaded.add(parameters["loaderId"])
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(parameters))
        return message


@contextmanager
def browser(path: str, folder: Path) -> Iterator[Browser]:
    """Run a browser that keeps its state in `folder`; it ends with the block."""
    arguments = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
        f"--user-data-dir={folder}", "about:blank",
    )  # fmt: skip
    process = subprocess.Popen(
        [path, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = wait_for(lambda: _port(folder), "the browser's port", START_PATIENCE_S)
        listed = f"http://127.0.0.1:{port}/json/list"
        pages = wait_for(lambda: _pages(listed), "an open page", START_PATIENCE_S)
        with connect(
            pages[0], max_size=None, open_timeout=PATIENCE_S, ping_timeout=PATIENCE_S
        ) as socket:
            yield Browser(socket)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE_S)


def _port(folder: Path) -> str:
    file = folder / "DevToolsActivePort"
    first, end, _ = file.read_text().partition("\n") if file.exists() else ("", "", "")
    return first if end else ""  # else it is being written


def _pages(listed: str) -> list[str]:
    found = httpx.get(listed, timeout=PATIENCE_S).json()
    return [page["webSocketDebuggerUrl"] for page in found if page["type"] == "page"]
