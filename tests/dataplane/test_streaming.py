"""Streamed answers and requests: passed on piece by piece, timed, and recorded."""

from __future__ import annotations

import asyncio
import gzip
import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import Phase, given, settings, strategies as st

from proxy.config.resolved import RedactRule
from proxy.dataplane.pool import Pool
from proxy.wire.stream_times import MEDIAN_ERROR
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server
from tests.support.streams import CHUNKED, EVENTS, LAST, UNTIL_CLOSE, InStep, chunk
from tests.support.upstreams import Behaviour, Request, Upstream, answer, raw_answer

KIB = 1024
ASK = request_bytes(b"POST", b"/", b"x", b"")
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'


async def _read_in_step(plane: Plane, stream: InStep) -> bytes:
    """Return the answer's body; for an HTTP/1.1 client it is chunked, whatever the backend did."""
    reader, writer = await plane.connect()
    with closing(writer):
        writer.write(ASK)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        return await stream.read(reader)


@pytest.mark.parametrize("size", [20, 300 * KIB])
@pytest.mark.parametrize("mirrored", [False, True])
async def test_no_event_waits_for_the_next(tmp_path: Path, size: int, mirrored: bool) -> None:
    """The backend sends on when the client has seen the last event, however large; else: a hang."""
    stream = InStep([b"data: %b\n\n" % (b"%d" % n * size) for n in range(8)])
    async with (
        Upstream(stream.behaviour(EVENTS + CHUNKED, is_chunked=True)) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port} if mirrored else {},
        ) as plane,
    ):
        body = await _read_in_step(plane, stream)
        assert body == b"".join(stream.pieces)


class _Reads(asyncio.Protocol):
    """A client that keeps what each of its reads brought."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)


async def test_many_events_that_come_together_are_passed_on_together(tmp_path: Path) -> None:
    """One read from the backend is one write to the client, whatever is in it."""
    events = [b"data: %d\n\n" % number for number in range(500)]
    go = asyncio.Event()

    async def burst(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        writer.write(EVENTS + CHUNKED + chunk(b": hello\n\n"))
        await go.wait()
        writer.write(b"".join(map(chunk, events)))

    async with (
        Upstream(burst) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        transport, client = await asyncio.get_running_loop().create_connection(
            _Reads, "127.0.0.1", plane.port
        )
        with closing(transport):
            transport.write(ASK)
            await until(lambda: b"hello" in b"".join(client.reads), "the first event")
            first = len(client.reads)
            go.set()
            await until(lambda: b"499" in b"".join(client.reads), "the last event")
            assert len(client.reads) <= first + 2
        (line,) = await plane.pairs(1)
    assert line["primary_chunks"] == 501
    assert line["primary_body"].endswith("".join(event.decode() for event in events))


async def test_an_upload_is_passed_on_piece_by_piece(tmp_path: Path) -> None:
    """The client sends on when the backend has seen the last piece."""
    seen = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while not seen.endswith(LAST):
            seen.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()

    async with (
        raw_server(take) as port,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=port, candidates={"v2": candidate.port}) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(8):
                piece = chunk(b"piece %d" % number)
                writer.write(piece)
                await until(lambda: seen.endswith(piece), "the backend to see it")  # noqa: B023
            writer.write(LAST)
            assert (await read_answer(reader))[::2] == (200, b"ok")
        await plane.pairs(1)
    assert candidate.requests[0].body == b"".join(b"piece %d" % number for number in range(8))


steps = st.lists(
    st.tuples(st.binary(min_size=1, max_size=2000), st.floats(0.0, 0.02)), min_size=1, max_size=8
)


@settings(max_examples=12, phases=[Phase.generate])  # an example is short as it is
@given(steps=steps, is_chunked=st.booleans())
def test_bytes_are_unchanged_and_times_within_their_error(
    steps: list[tuple[bytes, float]], is_chunked: bool
) -> None:
    """Whatever the pieces and the pauses; between sender and reader stands the proxy's clock."""
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_stream_once(Path(folder), steps, is_chunked=is_chunked))


async def _stream_once(folder: Path, steps: list[tuple[bytes, float]], *, is_chunked: bool) -> None:
    stream = InStep([piece for piece, _ in steps], [pause_s for _, pause_s in steps])
    head = EVENTS + (CHUNKED if is_chunked else UNTIL_CLOSE)
    async with (
        Upstream(stream.behaviour(head, is_chunked=is_chunked)) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(folder, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        body = await _read_in_step(plane, stream)
        (line,) = await plane.pairs(1)
    assert body == b"".join(stream.pieces)
    assert line["primary_stream_complete"] is True
    assert line["primary_response_bytes"] == len(body)
    assert "candidate_itl_max_us" not in line
    _check_times(line, *stream.gaps_s())


def _check_times(line: dict[str, Any], least_s: list[float], most_s: list[float]) -> None:
    if not least_s:
        assert "primary_itl_p50_us" not in line
        return
    us = 1e6
    assert max(least_s) * us - 1 <= line["primary_itl_max_us"] <= max(most_s) * us + 1
    low = statistics.median_low(least_s) * us * (1 - MEDIAN_ERROR) - 2
    high = statistics.median_low(most_s) * us * (1 + MEDIAN_ERROR) + 2
    assert low <= line["primary_itl_p50_us"] <= high


def _paused(*pieces: bytes, pause_s: float = 0.03) -> _Paused:
    return _Paused(EVENTS + CHUNKED, *map(chunk, pieces), LAST, pause_s=pause_s)


class _Paused:
    """A backend that pauses between the moment in which the proxy has a piece and the next one."""

    def __init__(self, *pieces: bytes, pause_s: float) -> None:
        self._pieces, self._pause_s = pieces, pause_s
        self.pool: Pool

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Write each by itself."""
        del request
        (leg,) = self.pool.legs()
        for piece in self._pieces:
            before = leg.head, leg.response_bytes
            writer.write(piece)
            if piece is not LAST:
                await until(lambda: (leg.head, leg.response_bytes) != before, "it to be read")  # noqa: B023 - awaited at once
                await asyncio.sleep(self._pause_s)


async def _recorded(
    tmp_path: Path, behaviour: Behaviour | _Paused, **options: Any
) -> dict[str, Any]:
    """Return the line of one exchange whose candidate streams so."""
    async with (
        Upstream(answer(b"p")) as primary,
        Upstream(behaviour) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(**options),
        ) as plane,
    ):
        if isinstance(behaviour, _Paused):
            behaviour.pool = plane.worker.pools["v2"]
        await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        return line


@pytest.mark.parametrize("weight_bp", [0, 10_000])
async def test_the_time_to_the_first_token_is_that_of_the_first_token(
    tmp_path: Path, weight_bp: int
) -> None:
    """Not of the comment and the role before it; on the leg that serves and on a copy alike."""
    line = await _recorded(
        tmp_path, _paused(b": ping\n\n", ROLE, TOKEN, TOKEN), weight_bp={"v2": weight_bp}
    )
    ttfb_us, ttft_us = line["candidate_ttfb_us"], line["candidate_ttft_us"]
    assert ttft_us >= ttfb_us + 85_000  # head, comment and role are 30 ms apart each
    assert ttft_us <= line["candidate_latency_us"] - 25_000
    assert 25_000 <= line["candidate_itl_p50_us"] <= line["candidate_itl_max_us"] * 1.03
    assert "primary_ttft_us" not in line


async def test_an_answer_in_one_piece_has_no_stream_times(tmp_path: Path) -> None:
    """Be it chunked: there is no gap to tell."""
    whole = raw_answer(b"HTTP/1.1 200 OK\r\n" + CHUNKED + chunk(b"{}") + LAST)
    line = await _recorded(tmp_path, whole)
    assert (line["candidate_chunks"], line["candidate_body"]) == (1, "{}")
    assert not [name for name in line if "itl" in name or "ttft" in name]


async def test_a_large_answer_of_declared_length_is_no_stream(tmp_path: Path) -> None:
    """It comes in many reads, and the network alone decides how many."""
    line = await _recorded(tmp_path, answer(bytes(2**20)))
    assert line["candidate_chunks"] > 1
    assert not [name for name in line if "itl" in name]


async def test_an_event_stream_of_declared_length_is_timed_too(tmp_path: Path) -> None:
    """What is streamed is said by its type; the framing does not matter."""
    head = EVENTS + b"content-length: %d\r\n\r\n" % (2 * len(TOKEN))
    line = await _recorded(tmp_path, _Paused(head, TOKEN, TOKEN, pause_s=0.03))
    assert line["candidate_itl_max_us"] >= 25_000
    assert line["candidate_ttft_us"] >= 25_000


async def test_a_compressed_stream_passes_as_it_is(tmp_path: Path) -> None:
    """Its events cannot be told apart here; bytes, gaps and encoding are there all the same."""
    packed = gzip.compress(ROLE + TOKEN * 50)
    half = len(packed) // 2
    head = EVENTS + b"content-encoding: gzip\r\n" + CHUNKED
    stream = _Paused(head, chunk(packed[:half]), chunk(packed[half:]), LAST, pause_s=0.02)
    async with (
        Upstream(stream) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        stream.pool = plane.worker.pools["primary"]
        _, fields, body = await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
    assert (fields[b"content-encoding"], body) == (b"gzip", packed)
    assert line["primary_itl_max_us"] >= 15_000
    assert line["primary_body_encoding"] == "base64"


_END = (
    b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":900}}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("redact", [(), (RedactRule("a"),)])
async def test_the_end_of_a_stream_over_the_limit_is_journaled_beside_its_start(
    tmp_path: Path, redact: tuple[RedactRule, ...]
) -> None:
    """So that the recorder learns what it counted; not where a part could not be redacted."""
    line = await _recorded(
        tmp_path,
        _paused(*[TOKEN * 100] * 4, _END, pause_s=0.002),
        limits={"record_body_bytes": 10_000},
        redact=redact,
    )
    if redact:
        assert line["candidate_body_state"] == "redacted"
        assert "candidate_tail" not in line
        return
    assert line["candidate_body_state"] == "truncated"
    assert len(line["candidate_body"]) == 10_000
    tail = line["candidate_tail"].encode()
    assert tail.startswith(b"data: ")
    assert tail.endswith(TOKEN + _END)
    assert len(tail) <= 4096


async def test_a_stream_just_over_the_limit_has_no_byte_twice(tmp_path: Path) -> None:
    """The end is of what was not kept."""
    line = await _recorded(
        tmp_path, _paused(TOKEN * 2, TOKEN, _END), limits={"record_body_bytes": 2 * len(TOKEN) + 9}
    )
    assert line["candidate_body"].encode() == TOKEN * 2 + TOKEN[:9]
    assert line["candidate_tail"].encode() == _END
