"""Reads many streams of `benchmarks.programs.events` and says what became of their events.

It prints three objects: when the measured time begins (all streams are open and warm), when it has
ended, and the result. While it measures it only notes bytes and times; they are read afterwards,
framing included: what it takes of the processors, the proxy cannot have.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.programs.events import EVENT_BYTES, NUMBER, TIME

SHARES = (0.5, 0.9, 0.99, 0.999)
_AT_ONCE = 50
_OPEN_S = 60.0
_WARM_S = 0.5

Times = npt.NDArray[np.int64]


@dataclass(slots=True)
class Heard:
    """What one stream brought: its bytes, in pieces, and when each piece came."""

    pieces: list[bytes] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one stream: number in the stream, when each was written and came."""

    numbers: Times
    written_ns: Times
    came_ns: Times


def events_of(heard: Heard) -> Events:
    """Return the events in a stream's bytes; an event has come when its last byte has."""
    content = b"".join(heard.pieces)
    count = len(content) // EVENT_BYTES
    if count == 0:
        nothing = np.zeros(0, np.int64)
        return Events(nothing, nothing, nothing)
    rows = np.frombuffer(content, np.uint8, count * EVENT_BYTES).reshape(count, EVENT_BYTES)
    ends = np.cumsum([len(piece) for piece in heard.pieces])
    place = np.searchsorted(ends, np.arange(1, count + 1) * EVENT_BYTES)
    return Events(
        _decimal(rows[:, NUMBER]), _decimal(rows[:, TIME]), np.array(heard.times_ns)[place]
    )


def summary(streams: list[Events], begin_ns: int, end_ns: int) -> dict[str, Any]:
    """Return counts of the window, and quantiles of delay and of gaps between events.

    Each stream's numbers must follow one another without a gap: one that is less than its
    predecessor's next is out of order, one that is more means that some are missing.
    """
    delays, gaps, events, missing, reordered = [], [], 0, 0, 0
    for one in streams:
        steps = np.diff(one.numbers)
        missing += int(np.sum(steps[steps > 1] - 1)) + (
            int(one.numbers[0]) if one.numbers.size else 0
        )
        reordered += int(np.sum(steps < 1))
        inside = (one.written_ns >= begin_ns) & (one.written_ns < end_ns)
        events += int(inside.sum())
        delays.append((one.came_ns - one.written_ns)[inside])
        gaps.append(np.diff(one.came_ns[inside]))
    return {
        "events": events,
        "missing": missing,
        "reordered": reordered,
        "delay_ns": _quantiles(np.concatenate(delays)),
        "gap_ns": _quantiles(np.concatenate(gaps)),
    }


def _decimal(digits: npt.NDArray[np.uint8]) -> Times:
    """Return the numbers of an array of ASCII digits (count, length)."""
    powers = 10 ** np.arange(digits.shape[1] - 1, -1, -1, dtype=np.int64)
    numbers: Times = (digits.astype(np.int64) - ord("0")) @ powers
    return numbers


def _quantiles(values: Times) -> dict[str, float]:
    return (
        {str(share): float(np.quantile(values, share)) for share in SHARES} if values.size else {}
    )


class Reader(asyncio.Protocol):
    """One stream; notes what comes, as it comes."""

    def __init__(self, opened: asyncio.Event) -> None:
        self.reads = Heard()
        self.opened = opened
        self.is_cut = False
        self.transport = cast(asyncio.Transport, None)
        self._note, self._note_time = self.reads.pieces.append, self.reads.times_ns.append
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """The stream has ended, which none should."""
        self.is_cut = True
        self.opened.set()

    def data_received(self, data: bytes) -> None:
        """Note a read and its time; what is not the end of a head opens the stream, a refusal too."""
        self._note_time(time.monotonic_ns())
        self._note(data)
        if not self._is_open and not data.endswith(b"\r\n\r\n"):
            self._is_open = True
            self.opened.set()


class Unframed:
    """The answer in what a stream's reads brought, without its framing.

    Attributes:
        body: its pieces, and when each came.
        is_ended: the answer is whole, which none should be.
    """

    def __init__(self, reads: Heard) -> None:
        self.body = Heard()
        self.is_ended = False
        self._now_ns = 0
        parser = httptools.HttpResponseParser(self)
        for data, self._now_ns in zip(reads.pieces, reads.times_ns, strict=True):
            parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Note a piece."""
        self.body.pieces.append(body)
        self.body.times_ns.append(self._now_ns)

    def on_message_complete(self) -> None:
        """The answer has ended."""
        self.is_ended = True


def ending(reads: Heard) -> str:
    """Return how an answer began and ended: its status line, `Proxy-Status` included, and last bytes."""
    content = b"".join(reads.pieces)
    head = content.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    said = [line for line in head[1:] if line.lower().startswith("proxy-status:")]
    return f"{' '.join([head[0], *said])} ... {content[-40:]!r}"


async def _open(port: int, path: str, count: int) -> list[Reader]:
    """Open all streams, some at a time, and wait for the first event of each."""
    readers: list[Reader] = []
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    for first in range(0, count, _AT_ONCE):
        batch = []
        for _ in range(min(_AT_ONCE, count - first)):
            opened = asyncio.Event()
            _, reader = await loop.create_connection(
                functools.partial(Reader, opened), "127.0.0.1", port
            )
            reader.transport.write(request)
            batch.append(reader)
        for reader in batch:
            await asyncio.wait_for(reader.opened.wait(), _OPEN_S)
        readers += batch
    return readers


async def _run(settings: dict[str, Any]) -> None:
    """Open, measure, and print."""
    readers = await _open(settings["port"], settings["path"], settings["streams"])
    gc.collect()
    gc.disable()
    await asyncio.sleep(_WARM_S)
    begin_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
    print(json.dumps({"said": "begin"}), flush=True)
    await asyncio.sleep(settings["seconds"])
    end_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns() - cpu_ns
    print(json.dumps({"said": "end"}), flush=True)
    # What was written before the end may still be under way.
    await asyncio.sleep(_WARM_S)
    was_cut = [reader.is_cut for reader in readers]
    for reader in readers:
        reader.transport.abort()
    heard = [Unframed(reader.reads) for reader in readers]
    cut = [was_cut[n] or heard[n].is_ended for n in range(len(heard))]
    ends = Counter(
        ending(reader.reads) for reader, is_cut in zip(readers, cut, strict=True) if is_cut
    )
    found = summary([events_of(one.body) for one in heard], begin_ns, end_ns)
    seconds = (end_ns - begin_ns) / 1e9
    told = {"cut": sum(cut), "ends": ends, "seconds": seconds, "cpu_ns": cpu_ns}
    print(json.dumps(found | told), flush=True)


if __name__ == "__main__":
    uvloop.run(_run(json.loads(sys.argv[1])))
