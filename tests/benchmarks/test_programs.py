"""The benchmarks' own servers and clients, on real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.client_gone import Leaving, released_ms
from benchmarks.dialogue import Dialogue, ask
from benchmarks.fleet import BenchmarkError, Fleet, free_port
from benchmarks.paced import PacedLoad, parse_paced
from benchmarks.programs import event_reader, events
from benchmarks.programs.event_reader import Events, Heard
from benchmarks.programs.faulty import Fault
from benchmarks.programs.open_loop import p99_of_seconds
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, START_PATIENCE_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks need Linux")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that ends with the test."""
    with Fleet(tmp_path) as fleet:
        yield fleet


def _started(fleet: Fleet, program: str, **settings: object) -> int:
    port = free_port()
    child = Dialogue(fleet, program, {"port": port, **settings}).child
    fleet.wait_for_port(child, port, limit_s=START_PATIENCE_S)
    return port


def test_open_loop_sends_what_is_planned(fleet: Fleet) -> None:
    """Every planned request is sent and answered, and the generator tells its own lateness."""
    port = _started(fleet, "clocked")
    load = PacedLoad(256, 0.2, rate_per_s=500, connections=4)
    result = load.send(fleet, f"http://127.0.0.1:{port}")
    assert (result.requests, result.errors) == (100, {})
    assert 0 < result.quantiles_us[0.5] < 10e6
    assert result.late_p99_us is not None


def test_a_stall_spoils_the_figure_of_one_second() -> None:
    """Each whole second has a 99th percentile of its own; what is over at the end has none."""
    quick, stalled = [1.0] * 100, [1.0] * 90 + [50.0] * 10
    latencies = [round(value) for value in (*quick, *stalled, *quick, *quick[:30])]
    assert p99_of_seconds(latencies, 100) == [1.0, 50.0, 1.0]
    assert p99_of_seconds(latencies[:99], 100) == []


def test_open_loop_counts_what_is_never_answered(fleet: Fleet) -> None:
    """A server that takes connections and says nothing: nothing answered, everything counted."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        (fleet.folder / "body.json").write_bytes(b"{}")
        settings = {
            "port": silent.getsockname()[1], "path": "/", "body": str(fleet.folder / "body.json"),
            "key_header": "X-User-Id", "rate_per_s": 100, "seconds": 0.1, "connections": 2,
            "give_up_s": 0.2,
        }  # fmt: skip
        said = ask(fleet, "open_loop", settings, limit_s=PATIENCE_S)
    assert said["requests"] == 0
    assert said["errors"] == {"no answer": 10}
    assert parse_paced(said).p50_us > 100_000


def test_a_program_that_says_nothing_is_reported_with_its_own_words(fleet: Fleet) -> None:
    """Settings that are missing end it; its traceback is in the message."""
    with pytest.raises(BenchmarkError, match="KeyError"):
        ask(fleet, "clocked", {}, limit_s=PATIENCE_S)


def test_every_fault_is_what_it_says(fleet: Fleet) -> None:
    """Seen from a client: refused, silent, slow, endless, huge, a bomb, and overloaded."""
    ports = {fault: free_port() for fault in Fault}
    child = Dialogue(fleet, "faulty", {"ports": ports, "rate_per_s": 20}).child
    fleet.wait_for_port(child, ports[Fault.BOMB], limit_s=START_PATIENCE_S)
    with pytest.raises(ConnectionRefusedError), _asked(ports[Fault.REFUSES]):
        pass
    with pytest.raises(TimeoutError), _asked(ports[Fault.HUNG], timeout_s=0.2):
        pass
    with _asked(ports[Fault.HEALTHY]) as answer:
        assert answer.read().startswith(b'{"model_name"')
    with _asked(ports[Fault.SLOW]) as answer:
        assert answer.read(1) == b" "
    with _asked(ports[Fault.ENDLESS]) as answer:
        assert len(answer.read(1 << 18)) == 1 << 18
    with _asked(ports[Fault.HUGE]) as answer:
        assert answer.getheader("Content-Length") == "1000000000"
    with _asked(ports[Fault.BOMB]) as answer:
        assert answer.getheader("Content-Encoding") == "gzip"
        content = answer.read()
    assert zlib.decompressobj(31).decompress(content, 1 << 20) == bytes(1 << 20)
    assert len(content) * 500 < 64 << 20
    begun_s = monotonic_s()
    for _ in range(3):
        with _asked(ports[Fault.OVERLOADED]) as answer:
            assert answer.read().startswith(b'{"model_name"')
    assert monotonic_s() - begun_s > 0.09


@contextlib.contextmanager
def _asked(port: int, timeout_s: float = PATIENCE_S) -> Iterator[http.client.HTTPResponse]:
    """Send a request, and give the answer once its head is there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/models/digits/predict", b"{}")
        with connection.getresponse() as answer:
            yield answer


def test_the_candidate_tells_when_its_last_request_came(fleet: Fleet) -> None:
    """Asking for the clock is not counted."""
    url = f"http://127.0.0.1:{_started(fleet, 'clocked')}"
    urllib.request.urlopen(f"{url}/x", data=b"{}", timeout=PATIENCE_S).close()
    for _ in range(2):
        with urllib.request.urlopen(f"{url}/clock", timeout=PATIENCE_S) as answer:
            said = json.loads(answer.read())
        assert said["requests"] == 1
        assert said["last_ns"] > 0


@pytest.mark.parametrize("leaving", list(Leaving))
def test_whoever_leaves_is_noticed_by_the_backend_and_not_before(
    fleet: Fleet, leaving: Leaving
) -> None:
    """Without a proxy between them; others are answered meanwhile."""
    port = _started(fleet, "abandoned")
    with _asked(port) as answer:
        assert answer.read().startswith(b'{"model_name"')
    before_s = monotonic_s()
    assert 0 < released_ms(port, port, leaving) < (monotonic_s() - before_s) * 1e3


def test_a_stream_that_was_cut_says_how() -> None:
    """Its status line, what a proxy says of it, and its last bytes."""
    refused = [b"HTTP/1.1 502 Bad Gateway\r\nserver: x\r\nproxy-status: us; err", b"or=y\r\n\r\n{}"]
    said = event_reader.ending(Heard(refused, [1, 2]))
    assert said.startswith("HTTP/1.1 502 Bad Gateway proxy-status: us; error=y ... ")
    assert said.endswith("{}'")


@pytest.mark.parametrize("is_streamed", [True, False])
def test_chat_upstream_answers_whole_and_streamed(fleet: Fleet, *, is_streamed: bool) -> None:
    """32 words either way; the stream ends as OpenAI's does."""
    url = f"http://127.0.0.1:{_started(fleet, 'chat')}/v1/chat/completions"
    body = json.dumps({"stream": is_streamed}).encode()
    with urllib.request.urlopen(url, data=body, timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    if is_streamed:
        assert text.count("data: {") == 32
        assert text.endswith("data: [DONE]\n\n")
    else:
        assert len(json.loads(text)["choices"][0]["message"]["content"].split()) == 32


def test_events_arrive_numbered_dated_and_whole(fleet: Fleet) -> None:
    """The reader finds every event of every stream, in order."""
    port = _started(fleet, "events", rate_per_s=20)
    settings = {"port": port, "path": "/", "streams": 5, "seconds": 2.0}
    with Dialogue(fleet, "event_reader", settings) as reader:
        assert [reader.hear(limit_s=PATIENCE_S)["said"] for _ in range(2)] == ["begin", "end"]
        said = reader.hear(limit_s=PATIENCE_S)
    assert (said["cut"], said["missing"], said["reordered"]) == (0, 0, 0)
    assert 20 <= said["events"] <= 2_000  # 200, unless one or the other stands still
    assert said["delay_ns"]["0.5"] > 0


def test_a_connection_that_is_used_again_starts_at_0(fleet: Fleet) -> None:
    """Numbers count within a stream, not within a proxy's connection to the server."""
    port = _started(fleet, "events", rate_per_s=20)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("GET", "/")
            answer = connection.getresponse()
            first = answer.read(events.EVENT_BYTES)
            assert int(first[events.NUMBER]) == 0
            urllib.request.urlopen(
                f"http://127.0.0.1:{port}{events.END}", timeout=PATIENCE_S
            ).close()
            answer.read()


def test_events_are_found_wherever_the_bytes_are_cut() -> None:
    """An event has come when its last byte has."""
    content = b"".join(events.event(number, 1000 + number) for number in range(3))
    middle = events.EVENT_BYTES + 7
    found = event_reader.events_of(Heard([content[:middle], content[middle:]], [50, 60]))
    assert found.numbers.tolist() == [0, 1, 2]
    assert found.written_ns.tolist() == [1000, 1001, 1002]
    assert found.came_ns.tolist() == [50, 60, 60]


def test_missing_and_reordered_events_are_counted() -> None:
    """By the numbers of the stream, from 0 on."""
    times = np.arange(4, dtype=np.int64)
    streams = [Events(np.array(numbers), times, times) for numbers in ([0, 1, 4, 3], [2, 3, 4, 5])]
    found = event_reader.summary(streams, 0, 10)
    assert (found["missing"], found["reordered"]) == (2 + 2, 1)


def test_slow_clients_stay_as_many_as_they_were(fleet: Fleet) -> None:
    """A socket that the server closes is opened again."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        settings = {"port": server.getsockname()[1], "path": "/", "sockets": 3}
        with Dialogue(fleet, "slow_clients", settings) as crowd:
            assert crowd.hear(limit_s=PATIENCE_S) == {"open": 3, "closed": 0, "lines": 0}
            accepted = [server.accept()[0] for _ in range(3)]
            assert accepted[0].recv(100).startswith(b"POST / HTTP/1.1\r\n")
            accepted[0].close()
            server.settimeout(PATIENCE_S)
            accepted.append(server.accept()[0])
            for one in accepted:
                one.close()
