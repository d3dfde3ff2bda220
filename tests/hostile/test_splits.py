"""Laws of the front door, on streams that nobody has thought of.

1. However a stream is cut into reads, the same requests go upstream and the same answers come back.
2. What goes upstream is exactly what an independent strict reader finds in the stream: never a
   message that it rejects, never one that it does not see, and never one fewer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from hypothesis import given, strategies as st

from proxy.dataplane.client import ClientConnection
from tests.hostile.grammar import Message, check_forwarded, read_answers, read_requests
from tests.hostile.rows import REQUESTS, extra_rows, shared_rows
from tests.hostile.stage import SHORT, Stage, stage
from tests.hostile.streams import damaged_requests
from tests.support.dataplane import until

LONG = replace(SHORT, head_s=600.0, body_idle_s=600.0, keep_alive_s=600.0)
#: (answers as far as they matter, requests that went upstream whole)
Outcome = tuple[list[tuple[str, bytes]], list[tuple[bytes, bytes, bytes]]]


class CutTransport:
    """A client's transport whose reads are cut exactly where the test says."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_paused = False
        self.is_over = False
        self.protocol: Any = None

    def writelines(self, pieces: list[bytes]) -> None:
        """Keep what the client would read."""
        self.written += b"".join(pieces)

    def write(self, data: bytes) -> None:
        """Keep what the client would read."""
        self.written += data

    def pause_reading(self) -> None:
        """The next read waits."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """The next read may come."""
        self.is_paused = False

    def get_extra_info(self, name: str) -> Any:
        """Return the peer, and nothing else."""
        return {"peername": ("127.0.0.1", 1)}.get(name)

    def get_write_buffer_size(self) -> int:
        """Everything is read at once."""
        return 0

    def is_closing(self) -> bool:
        """Tell whether either side has closed."""
        return self.is_over

    def can_write_eof(self) -> bool:
        """A plain TCP connection."""
        return True

    def write_eof(self) -> None:
        """Nothing is written after it; the client closes its side when it has sent everything."""

    def close(self) -> None:
        """End, and say so in a moment."""
        if not self.is_over:
            self.is_over = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class Theatre:
    """A stage that lasts for many examples."""

    def __init__(self, runner: asyncio.Runner, found: Stage) -> None:
        self._runner = runner
        self._stage = found

    def play(self, pieces: list[bytes]) -> Outcome:
        """Feed the pieces as reads and then an end; return what came of it, checked."""
        return self._runner.run(self._play(pieces))

    async def _play(self, pieces: list[bytes]) -> Outcome:
        worker = self._stage.plane.worker
        self._stage.primary.seen.clear()
        transport = CutTransport()
        state = SimpleNamespace(connections=set())
        client = ClientConnection(worker, None, state, None, None)
        transport.protocol = client
        client.connection_made(transport)  # type: ignore[arg-type]  # what is used of one
        for piece in filter(None, pieces):
            await until(lambda: not transport.is_paused or transport.is_over, "the next read")
            if not transport.is_over:
                client.data_received(piece)
        await until(lambda: not transport.is_paused or transport.is_over, "the last read")
        if not transport.is_over and not client.eof_received():
            transport.close()
        await until(lambda: not state.connections, "the end")
        pool = worker.pools["primary"]
        await until(lambda: not pool.in_flight, "the legs to end")
        # One that is opened for a leg that has ended would serve, unseen, the next example.
        await until(lambda: not pool.statistics().connecting, "the last connection")
        pool.close()
        sent = [m for data in self._stage.primary.seen for m in check_forwarded(bytes(data))]
        answers = read_answers(bytes(transport.written), [message.method for message in sent])
        return [_seen_by_client(a) for a in answers], [(m.method, m.target, m.body) for m in sent]


def _seen_by_client(answer: Message) -> tuple[str, bytes]:
    is_refusal = answer.status >= 400  # which refusal may depend on what came first
    return ("refused", b"") if is_refusal else (str(answer.status), answer.body)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Open a stage on an event loop of its own, for examples that are not coroutines."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        scope = stage(tmp_path_factory.mktemp("splits") / "state")
        found = runner.run(scope.__aenter__())
        found.plane.worker.clients.deadlines = LONG  # between two pieces a client may be stalled
        yield Theatre(runner, found)
        runner.run(scope.__aexit__(None, None, None))


STREAMS = [
    row.data
    for row in [*shared_rows(*REQUESTS), *extra_rows("request")]
    if len(row.data) < 2000  # the property is about cuts, not about size
]


def _cut(data: bytes, cuts: list[float]) -> list[bytes]:
    edges = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


CUTS = st.lists(st.floats(0, 1), max_size=12)


@given(st.sampled_from(STREAMS) | damaged_requests(), CUTS)
def test_however_a_stream_is_cut_it_means_the_same(
    theatre: Theatre, data: bytes, cuts: list[float]
) -> None:
    """The framing is in the bytes, not in the packets."""
    assert theatre.play(_cut(data, cuts)) == theatre.play([data])


@given(st.sampled_from(STREAMS) | damaged_requests())
def test_byte_by_byte_means_the_same_too(theatre: Theatre, data: bytes) -> None:
    """The hardest cut of all."""
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert theatre.play(pieces) == theatre.play([data])


@given(damaged_requests())
def test_what_goes_upstream_is_what_a_strict_reader_finds(theatre: Theatre, data: bytes) -> None:
    """Neither a bad accept nor a wrong refusal."""
    _, sent = theatre.play([data])
    assert [(m[0], m[2]) for m in sent] == [(m.method, m.body) for m in read_requests(data)]
