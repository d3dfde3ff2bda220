"""A process with four models, each on a port of its own, for end-to-end tests of ramps.

`primary` answers `{"y": x mod 7}`; `equal` does, too; `wrong` answers something else for three of a
hundred inputs; `fragile` is equal until it is told to break (`POST /break`), and then closes every
connection without an answer, to hang (`POST /hang`), or to answer 500 (`POST /fail`); `POST /mend` mends it.

    with models() as urls:
        httpx.post(f"{urls['primary']}/any", json={"x": 9})
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvloop

from tests.support.deadline import PATIENCE_S

NAMES = ("primary", "equal", "wrong", "fragile")
_LENGTH = re.compile(rb"(?i)content-length: *([0-9]+)")
#: What a model may be told, and what is wrong with it from then on.
_ORDERS = {b"/break": "reset", b"/hang": "hang", b"/fail": "error", b"/mend": ""}
_ERROR = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}"


class _Model(asyncio.Protocol):
    """One connection; requests come one after the other, each whole or in pieces."""

    fault = ""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        if not end or len(body) < int(found[1] if found else 0):
            return
        self._data = b""
        order = head.split(b" ", 2)[1]
        if order in _ORDERS:
            _Model.fault = _ORDERS[order]
        elif self._name == "fragile" and _Model.fault:
            if _Model.fault == "reset":
                self._transport.abort()
            elif _Model.fault == "error":
                self._transport.write(_ERROR)
            return
        self._answer(json.loads(body)["x"] if body else 0)

    def _answer(self, x: int) -> None:
        y = x % 7 + (self._name == "wrong" and x * 7919 % 100 < 3)
        answer = b'{"y": %d}' % y
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


async def _serve() -> None:
    loop, ports = asyncio.get_running_loop(), {}
    for name in NAMES:
        server = await loop.create_server(partial(_Model, name), "127.0.0.1", 0)
        ports[name] = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it is gone


@contextmanager
def models() -> Iterator[dict[str, str]]:
    """Serve the models until the block ends; their addresses by name."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ramp_models"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        ports = json.loads(process.stdout.readline())
        yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    finally:
        process.stdin.close()
        process.wait(PATIENCE_S)
        process.stdout.close()


if __name__ == "__main__":
    uvloop.run(_serve())
