"""The loop of a replay: its rate, its cap, and what it does when the backend is away or slow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.replay import Pace, Pacing, Pairing, Replay
from proxy.analysis.replay_log import Purpose, ReplayLog
from proxy.analysis.replay_pair import Place
from proxy.analysis.replay_request import Skip
from proxy.analysis.replay_tally import ReplayTally, lines
from proxy.analysis.replay_target import Limits, Sender, backend_of, changes_of
from proxy.analysis.source import Record, Source
from proxy.analysis.sources import FileSource, open_source
from proxy.config.resolved import Config, Protocol, Redact, RedactAction, RedactRule, Rewrite
from proxy.errors import ReplayError, SourceError
from proxy.telemetry import monotonic_s
from tests.analysis.test_kafka_source import produce
from tests.analysis.test_replay_request import recorded
from tests.support.kafka_topics import create_topic
from tests.support.records import write_pairs
from tests.support.resolved_config import small_config
from tests.support.upstreams import unused_port

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n" + b'{"y":1}'
)

Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def backend(answering: Answering) -> AsyncIterator[str]:
    """Serve requests with small bodies by `answering`, which gets head and body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await answering(head + await reader.readexactly(size), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.close()


async def at_once(_: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer."""
    writer.write(ANSWER)


def source(folder: Path, count: int) -> FileSource:
    """Return a log of so many requests."""
    records = [recorded(b'{"x":%d}' % n, request_id=f"r-{n}", seq=n) for n in range(count)]
    path = write_pairs(folder / "pairs.ndjson.zst", records)
    return FileSource(str(path), [path])


class Broken(Source):
    """A source that cannot be read any more after 64 records."""

    def __init__(self, whole: Source) -> None:
        super().__init__(whole.statistics())
        self._whole = whole

    def __iter__(self) -> Iterator[Record]:
        yield from islice(self._whole, 64)
        raise SourceError("gone")


class Run:
    """A replay of so many requests to a URL."""

    def __init__(
        self, folder: Path, url: str, count: int, pacing: Pacing, config: Config | None = None
    ) -> None:
        self.config = config or small_config(folder)
        self.tally = ReplayTally()
        self.out = folder / "out.zst"
        self.source: Source = source(folder, count)
        self._log = ReplayLog(self.out, Purpose("pairs", url, "replay", "", ""))
        assert list(self._log.open()) == []
        where = backend_of(url, self.config)
        self._sender = Sender(
            where, changes_of(where, self.config), {}, Limits(2**20, 100), pacing.max_in_flight
        )
        place = Place(self._log.instance, self.config.version, "replay", where.name)
        self.replay = Replay(
            Pairing(self.config, place), self._log, self._sender, pacing, self.tally
        )

    async def run(self) -> list[dict[str, Any]]:
        """Run it to its end; return the pairs."""
        try:
            await self.replay.run(self.source, PairFilter())
        finally:
            await self._sender.close()
            self._log.close(is_complete=False)
        return list(FileSource("out", [self.out]))


@given(
    st.floats(0.1, 10_000),
    st.lists(st.floats(0, 2), min_size=1, max_size=50),
)
def test_the_rate_is_never_passed(rate: float, hold_ups: list[float]) -> None:
    """Over any stretch: whatever held it up, it does not catch up, but for a timer's slack."""
    pace, now_s, starts = Pace(rate), 100.0, list[float]()
    for hold_up_s in hold_ups:
        now_s += pace.wait_s(now_s) + hold_up_s
        pace.started(now_s)
        starts.append(now_s)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            allowed = 1 + (starts[last] - starts[first] + 0.0051) * rate
            assert last - first + 1 <= allowed + 1e-6


async def test_the_rate_is_kept(tmp_path: Path) -> None:
    """40 requests at 200 a second take a fifth of a second, and hardly more."""
    async with backend(at_once) as url:
        run = Run(tmp_path, url, 40, Pacing(200.0, 8))
        begun_s = monotonic_s()
        pairs = await run.run()
        took_s = monotonic_s() - begun_s
    assert len(pairs) == 40
    assert took_s >= 39 / 200 - 0.01
    assert run.tally.is_complete


async def test_the_cap_is_never_passed_and_slows_the_rate(tmp_path: Path) -> None:
    """Nothing is dropped, and the summary says what held the rate down."""
    under_way, most = 0, 0

    async def slowly(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        writer.write(ANSWER)

    async with backend(slowly) as url:
        run = Run(tmp_path, url, 20, Pacing(1_000.0, 3))
        pairs = await run.run()
    assert most == 3
    assert len({one["request_id"] for one in pairs}) == 20
    assert run.tally.held_s > 0.1
    assert any("--max-in-flight" in line for line in lines(run.tally, "out"))


async def test_a_backend_that_is_restarted_costs_nothing(tmp_path: Path) -> None:
    """Requests wait for it, and none is counted as an error."""
    port = unused_port()
    run = Run(tmp_path, f"http://127.0.0.1:{port}", 5, Pacing(100.0, 2))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run.run())
        await asyncio.sleep(0.3)
        assert run.tally.sent == 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(len(b'{"x":1}'))
                writer.write(ANSWER)

        server = await asyncio.start_server(serve, "127.0.0.1", port)
        pairs = await running
        server.close()
    assert [one["candidate_status"] for one in pairs] == ["ok"] * 5


async def test_nobody_there_ends_it_with_nothing_sent(tmp_path: Path) -> None:
    """The error says that the same command goes on."""
    url = f"http://127.0.0.1:{unused_port()}"
    run = Run(tmp_path, url, 5, Pacing(100.0, 2, patience_s=0.3))
    with pytest.raises(ReplayError, match=r"no connection to the backend for 0\.3 s"):
        await run.run()
    assert run.tally.sent == 0
    assert not run.tally.is_complete


async def test_failures_are_answers_too(tmp_path: Path) -> None:
    """A reset, an endless answer and one too long to keep, each with its status."""

    async def badly(request: bytes, writer: asyncio.StreamWriter) -> None:
        number = int(request.rpartition(b":")[2].rstrip(b"}"))
        if number in (0, 1):
            writer.transport.abort()
        elif number == 2:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 2**21)
        elif number == 3:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n" + b"1" * 200)
        else:
            writer.write(ANSWER.replace(b"200 OK", b"503 No"))

    config = small_config(tmp_path)
    async with backend(badly) as url:
        run = Run(tmp_path, url, 5, Pacing(500.0, 5), config)
        pairs = {one["request_id"]: one for one in await run.run()}
    found = [pairs[f"r-{n}"] for n in range(5)]
    assert [one["candidate_status"] for one in found] == [
        "reset", "reset", "reset", "ok", "http_error",
    ]  # fmt: skip
    assert [one["candidate_body_state"] for one in found][1:] == [
        "omitted", "truncated", "truncated", "full",
    ]  # fmt: skip
    assert "more than 1048576 bytes" in found[2]["candidate_error"]
    assert found[3]["not_comparable_reason"] == "candidate_truncated"
    assert found[3]["candidate_response_bytes"] == 200
    assert found[4]["candidate_http_status"] == 503


async def test_silence_is_an_answer_too(tmp_path: Path) -> None:
    """It ends with the time that the backend has."""

    async def never(_: bytes, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    config = small_config(tmp_path)
    async with backend(never) as url:
        where = replace(backend_of(url, config), name="slow", timeout_s=0.4)
        config = replace(config, backends={**config.backends, "slow": where})
        (found,) = await Run(tmp_path, "slow", 1, Pacing(500.0, 5), config).run()
    assert (found["candidate_status"], found["candidate_body_state"]) == ("timeout", "omitted")


async def test_a_stream_is_read_to_its_end_and_timed(tmp_path: Path) -> None:
    """Longer than `timeout`, which bounds a stream's head only; one that breaks off is a reset.

    A loop that stands still for a while spoils a try: a head is late, or two pieces come at once.
    """

    async def streaming(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for piece in (b": ping\n\n", b"data: 1\n\n", b"data: 2\n\n"):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.25)
        if b'"x":1' in request:
            writer.transport.abort()
        writer.write(b"0\r\n\r\n")

    config = small_config(tmp_path)
    async with backend(streaming) as url:
        where = replace(backend_of(url, config), name="slow", timeout_s=0.5)
        config = replace(config, backends={**config.backends, "slow": where})
        pairs: dict[str, dict[str, Any]] = {}
        for attempt in range(5):
            folder = tmp_path / str(attempt)
            folder.mkdir()
            run = Run(folder, "slow", 2, Pacing(500.0, 5), config)
            pairs = {one["request_id"]: one for one in await run.run()}
            is_apart = (pairs["r-0"]["candidate_itl_p50_ms"] or 0) > 100
            if is_apart and pairs["r-1"]["candidate_status"] == "reset":
                break
    whole, broken = pairs["r-0"], pairs["r-1"]
    assert whole["candidate_status"] == "ok"
    assert whole["candidate_body"] == ": ping\n\ndata: 1\n\ndata: 2\n\n"
    assert whole["candidate_stream_complete"] is True
    assert whole["candidate_chunks"] == 3
    assert whole["candidate_ttfb_ms"] < whole["candidate_ttft_ms"] < whole["candidate_latency_ms"]
    assert whole["candidate_itl_p50_ms"] > 100
    assert (broken["candidate_status"], broken["candidate_stream_complete"]) == ("reset", False)
    assert broken["not_comparable_reason"] == "candidate_failed"


async def test_what_is_redacted_live_is_redacted_here(tmp_path: Path) -> None:
    """The answers of the model under trial hold secrets, too."""

    async def telling(_: bytes, writer: asyncio.StreamWriter) -> None:
        body = b'{"y":1,"ssn":"123-45-6789"}'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)

    config = small_config(tmp_path)
    record = replace(config.record, redact=Redact((), (RedactRule("ssn", RedactAction.MASK),)))
    async with backend(telling) as url:
        run = Run(tmp_path, url, 3, Pacing(500.0, 5), replace(config, record=record))
        pairs = await run.run()
    assert [one["candidate_body"] for one in pairs] == ['{"y":1,"ssn":"***"}'] * 3
    assert {one["candidate_body_state"] for one in pairs} == {"redacted"}
    assert {one["candidate_response_sha256"] for one in pairs} == {None}


async def test_a_candidate_of_the_config_gets_what_it_would_get_live(tmp_path: Path) -> None:
    """Its header fields and its model's name; a name may be the candidate's or the backend's."""
    asked: list[bytes] = []

    async def noting(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(request)
        writer.write(ANSWER)

    config = small_config(tmp_path)
    route = config.routes[0]
    rewrite = Rewrite({"authorization": "Bearer of-v2"}, ("content-type",), "iris-new")
    first = replace(route.candidates[0], rewrite=rewrite)
    async with backend(noting) as url:
        where = replace(backend_of(url, config), name="iris-v2")
        config = replace(
            config,
            backends={**config.backends, "iris-v2": where},
            routes=(replace(route, protocol=Protocol.OPEN_INFERENCE, candidates=(first,)),),
        )
        run = Run(tmp_path, "v2", 1, Pacing(500.0, 5), config)
        pairs = await run.run()
    head = asked[0].lower()
    assert head.startswith(b"post /v2/models/iris-new/infer http/1.1\r\n")
    assert b"\r\nauthorization: bearer of-v2\r\n" in head
    assert b"content-type" not in head
    assert pairs[0]["candidate_backend"] == "iris-v2"


@pytest.mark.kafka
async def test_a_topic_is_replayed(tmp_path: Path, kafka_bootstrap: str) -> None:
    """Its reading has an event loop of its own; what is delivered again is sent once."""
    topic = f"replay-{uuid.uuid4().hex[:8]}.pairs.v1"
    create_topic(kafka_bootstrap, topic)
    records = [recorded(b'{"x":1}', request_id=f"r-{n}", seq=n) for n in range(150)]
    await asyncio.to_thread(produce, kafka_bootstrap, topic, [*records, *records[:10]])
    async with backend(at_once) as url:
        run = Run(tmp_path, url, 0, Pacing(2_000.0, 8))
        run.source = open_source(f"kafka://{kafka_bootstrap}/{topic}")
        pairs = await run.run()
    assert sorted(one["request_id"] for one in pairs) == sorted(f"r-{n}" for n in range(150))
    assert run.tally.skipped[Skip.REPEATED] == 10
    assert run.tally.is_complete


async def test_a_source_that_breaks_off_ends_it_with_what_was_sent(tmp_path: Path) -> None:
    """Whoever reads the error finds the pairs, and may go on."""
    async with backend(at_once) as url:
        run = Run(tmp_path, url, 70, Pacing(2_000.0, 8))
        run.source = Broken(run.source)
        with pytest.raises(SourceError, match="gone"):
            await run.run()
    assert run.tally.sent == 64
    assert not run.tally.is_complete


def test_a_backend_that_is_not_known_is_named(tmp_path: Path) -> None:
    """With those that are."""
    with pytest.raises(ReplayError, match=r"no such backend \(iris-v1, iris-v2\)"):
        backend_of("iris-v9", small_config(tmp_path))
    with pytest.raises(ReplayError, match="grpc is not supported"):
        backend_of("grpc://x:1", small_config(tmp_path))
