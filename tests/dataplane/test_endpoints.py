"""Several endpoints of one backend: who is asked, who is left alone, and how names are followed."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.config.resolved import Backend, Ejection, Endpoint, HealthCheck
from proxy.dataplane.dial import Dialer
from proxy.routing.standing import State
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, Plane, dataplane, request_bytes, until
from tests.support.endpoints import at, give_endpoints, upstreams
from tests.support.raw_server import silent_listener
from tests.support.upstreams import Behaviour, Request, Upstream, answer, echo, hang, unused_port

QUICK = Ejection(failures=2, first_s=0.2, longest_s=1.0, max_share_bp=5_000, slow_start_s=0.0)


async def ask(plane: Plane, times: int) -> list[int]:
    """Send requests one after the other; return their statuses."""
    return [(await plane.request(b"POST", b"/", body=b"x"))[0] for _ in range(times)]


def check_served(plane: Plane) -> None:
    """Check that each request has exactly one outcome."""
    served = sum(plane.count("served", "iris", outcome) for outcome in Outcome)
    assert served == plane.count("routed", "iris")


def later(gate: asyncio.Event) -> Behaviour:
    """Answer once the gate is open."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(request, writer)

    return behave


async def test_calls_go_where_the_fewest_are_under_way(tmp_path: Path) -> None:
    """One that is slow gets no more than its share of those under way; the other takes the rest."""
    gate = asyncio.Event()
    async with (
        upstreams(later(gate), echo) as (slow, fast),
        dataplane(tmp_path, primary=slow.port) as plane,
    ):
        give_endpoints(plane, *at(slow.port, fast.port))
        waiting = [asyncio.create_task(plane.request(b"POST", b"/", body=b"s")) for _ in range(2)]  # noqa: TID251 - awaited below
        await until(lambda: len(slow.requests) == 1 and len(fast.requests) == 1, "one call each")
        assert await ask(plane, 20) == [200] * 20
        assert (len(slow.requests), len(fast.requests)) == (1, 21)
        gate.set()
        await asyncio.gather(*waiting)


async def test_a_call_that_takes_over_an_attempt_has_its_own_time_to_connect(
    tmp_path: Path,
) -> None:
    """The client for whom a connection was being opened has left; the next one is not cut short."""
    with silent_listener() as port:
        async with dataplane(tmp_path, primary=port) as plane:
            pool = give_endpoints(plane, *at(port), connect_timeout_s=0.4)
            _, writer = await plane.connect()
            writer.write(request_bytes(b"GET", b"/", b"", b""))
            await until(lambda: pool.in_flight, "the first call")
            await asyncio.sleep(0.2)
            writer.transport.abort()
            await until(lambda: not pool.in_flight, "its end")
            begun_s = monotonic_s()
            assert (await plane.request(b"GET", b"/"))[0] == 504
            assert monotonic_s() - begun_s >= 0.4
            assert pool.statistics().connecting == 0


async def test_equal_endpoints_take_turns(tmp_path: Path) -> None:
    """Nobody is preferred because it is listed first."""
    async with (
        upstreams(echo, echo, echo) as backends,
        dataplane(tmp_path, primary=backends[0].port) as plane,
    ):
        give_endpoints(plane, *at(*(each.port for each in backends)))
        await ask(plane, 30)
    assert [len(each.requests) for each in backends] == [10, 10, 10]


async def test_a_dead_endpoint_is_ejected_and_comes_back(tmp_path: Path) -> None:
    """It costs no user an error, is not even tried while it is out, and is used again afterwards."""
    dead = unused_port()
    async with Upstream(echo) as alive, dataplane(tmp_path, primary=alive.port) as plane:
        pool = give_endpoints(plane, *at(dead, alive.port), ejection=replace(QUICK, first_s=1e3))
        assert await ask(plane, 20) == [200] * 20
        statistics = pool.statistics()
        assert (statistics.failed, statistics.ejections, statistics.serving) == (2, 1, 1)
        async with Upstream(echo, port=dead) as revived:
            pool._members[0].standing._until_s = 0.0  # its time is over
            await until(lambda: pool.statistics().serving == 2, "its return")
            assert await ask(plane, 20) == [200] * 20
            assert len(revived.requests) >= 5
        check_served(plane)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_gateway_errors_eject_and_others_do_not(tmp_path: Path, status: int) -> None:
    """A 500 may be the model's answer to a bad request; 502 to 504 say that nobody is there."""
    async with (
        upstreams(answer(b"", status=status), answer(b"", status=500)) as (gateway, broken),
        dataplane(tmp_path, primary=gateway.port) as plane,
    ):
        pool = give_endpoints(
            plane, *at(gateway.port, broken.port), ejection=replace(QUICK, first_s=60.0)
        )
        await ask(plane, 12)
        assert len(gateway.requests) == 2
        assert len(broken.requests) == 10
        assert pool.statistics().serving == 1


async def test_one_that_times_out_is_ejected(tmp_path: Path) -> None:
    """Users stop waiting for it after the second time-out."""
    async with (
        upstreams(hang, echo) as (hung, alive),
        dataplane(tmp_path, primary=hung.port, options=Options(timeout_s=600.0)) as plane,
    ):
        give_endpoints(plane, *at(hung.port, alive.port), ejection=replace(QUICK, first_s=1e3))
        asking = asyncio.create_task(ask(plane, 12))  # noqa: TID251 - awaited below
        for number in (1, 2):
            await until(lambda: len(hung.requests) == number, "a call that hangs")  # noqa: B023 - awaited at once
            plane.age("primary", 600.0)
        statuses = await asking
    assert statuses.count(504) == 2
    assert len(hung.requests) == 2


async def test_the_last_endpoint_is_never_ejected(tmp_path: Path) -> None:
    """A backend with one endpoint, or with all of them failing, is still asked."""
    async with (
        upstreams(answer(b"", status=503), answer(b"", status=503)) as backends,
        dataplane(tmp_path, primary=backends[0].port) as plane,
    ):
        pool = give_endpoints(
            plane, *at(*(b.port for b in backends)), ejection=replace(QUICK, first_s=60.0)
        )
        assert await ask(plane, 20) == [503] * 20
        assert pool.statistics().serving == 1
        assert sum(len(each.requests) for each in backends) == 20


def ready_if(healthy: asyncio.Event) -> Behaviour:
    """Echo, and answer the health check with 200 or 503."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target != b"/ready":
            await echo(request, writer)
        elif healthy.is_set():
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")

    return behave


async def test_checks_take_an_endpoint_out_before_users_notice(tmp_path: Path) -> None:
    """A model that says that it is loading gets no calls; once it is ready, it does."""
    healthy = asyncio.Event()
    health = HealthCheck(
        "/ready", interval_s=0.05, timeout_s=5.0, healthy_after=2, unhealthy_after=2
    )
    async with (
        upstreams(ready_if(healthy), echo) as (loading, alive),
        dataplane(tmp_path, primary=loading.port) as plane,
    ):
        pool = give_endpoints(plane, *at(loading.port, alive.port), health=health, ejection=QUICK)
        await until(lambda: pool._members[0].standing.state is State.DOWN, "the first to be down")
        assert await ask(plane, 10) == [200] * 10
        assert all(request.target == b"/ready" for request in loading.requests)
        healthy.set()
        await until(lambda: pool.statistics().serving == 2, "its return")
        await ask(plane, 10)
        assert sum(request.target != b"/ready" for request in loading.requests) >= 4


@pytest.mark.parametrize("behaviour", [hang, answer(b"", status=404)])
async def test_without_a_healthy_endpoint_all_are_asked(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    """A wrong path in the config must not be an outage."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await (behaviour if request.target == b"/ready" else echo)(request, writer)

    health = HealthCheck(
        "/ready", interval_s=0.05, timeout_s=0.05, healthy_after=1, unhealthy_after=1
    )
    async with Upstream(behave) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        pool = give_endpoints(plane, *at(primary.port), health=health)
        await until(lambda: pool.statistics().serving == 0, "a failed check")
        assert await ask(plane, 5) == [200] * 5


async def test_a_name_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both addresses are used; one that leaves the name gets no more calls; a failed look-up keeps all."""
    async with (
        upstreams(echo) as (first,),
        dataplane(tmp_path, primary=first.port) as plane,
    ):
        known = [("127.0.0.1",), ("127.0.0.2",)]
        pool = give_endpoints(
            plane,
            Endpoint("model.test", first.port),
            dns_refresh_s=0.05,
            ejection=Ejection(failures=0),
        )

        failed = 0

        async def look_up(endpoint: Endpoint) -> list[tuple[str, ...]]:
            nonlocal failed
            if not known:
                failed += 1
                raise OSError("no such name")
            return list(known)

        monkeypatch.setattr(pool._dialer, "look_up", look_up)
        await until(lambda: pool.statistics().members == 2, "both addresses")
        assert await ask(plane, 6) == [200] * 6  # 127.0.0.2 refuses: the other is asked
        known.clear()
        before = pool.statistics()
        await until(lambda: failed > 1, "look-ups that fail, the first of them to its end")
        assert pool.statistics().members == before.members
        known[:] = [("127.0.0.1",)]
        await until(lambda: pool.statistics().members == 1, "the second address to leave")
        assert await ask(plane, 4) == [200] * 4


async def test_members_stay_whatever_order_a_name_server_answers_in() -> None:
    """Many turn their answers round each time: connections and standings must outlive that."""
    order = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]

    class Names:
        async def getaddrinfo(self, _host: str, port: int, **_: Any) -> list[Any]:
            return [
                (socket.AF_INET6 if ":" in each else socket.AF_INET, 1, 6, "", (each, port))
                for each in order
            ]

    endpoint = Endpoint("model.test", 80)
    dialer = Dialer(Backend("primary", (endpoint,), 1.0, 1.0, 1, 4.0), Names())  # type: ignore[arg-type]  # all it asks of a loop here
    first = await dialer.look_up(endpoint)
    order.reverse()
    assert sorted(await dialer.look_up(endpoint)) == sorted(first)
    assert len(first) == 2


async def test_localhost_may_be_either_family(tmp_path: Path) -> None:
    """Servers that listen on `localhost` often listen on ::1 alone, or on 127.0.0.1 alone."""
    async with Upstream(echo) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        pool = give_endpoints(plane, Endpoint("localhost", primary.port))
        assert await ask(plane, 3) == [200] * 3
        await until(lambda: pool._members[0].addresses != ("localhost",), "the look-up")
        assert pool._members[0].addresses[0] == "127.0.0.1"
        assert await ask(plane, 3) == [200] * 3


async def test_a_unix_socket_is_an_endpoint(tmp_path: Path) -> None:
    """Request and answer pass as over TCP."""
    path = str(tmp_path / "m.sock")
    async with (
        Upstream(echo, socket_path=path) as primary,
        dataplane(tmp_path, primary=unused_port()) as plane,
    ):
        give_endpoints(plane, Endpoint("", 0, socket_path=path))
        assert (await plane.request(b"POST", b"/", body=b"over a file"))[2] == b"over a file"
        assert await ask(plane, 3) == [200] * 3
    assert len(primary.requests) == 4


async def test_a_closed_idle_connection_is_not_used(tmp_path: Path) -> None:
    """A backend that closes while nobody asks costs nobody a 502: its end is seen before the next call."""
    async with Upstream(echo) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        pool = plane.worker.pools["primary"]
        await ask(plane, 1)
        member = pool._members[0]
        (connection,) = member._idle
        connection.transport.pause_reading()  # the loop does not hear of the end
        await asyncio.sleep(0.15)
        for task in tuple(primary._tasks):
            task.cancel()
        await until(lambda: primary.open_connections == 0, "the backend to close")
        assert await ask(plane, 1) == [200]


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"POST", 502)])
async def test_a_request_is_sent_again_only_where_that_does_no_harm(
    tmp_path: Path, method: bytes, status: int
) -> None:
    """The pooled connection closes under the request: GET is repeated, on a new connection; POST is not."""
    seen = 0

    async def closes_the_second(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            writer.transport.abort()
        else:
            await echo(request, writer)

    async with (
        Upstream(closes_the_second) as primary,
        dataplane(tmp_path, primary=primary.port) as plane,
    ):
        await plane.request(method, b"/")
        assert (await plane.request(method, b"/"))[0] == status
        assert plane.worker.pools["primary"].statistics().retried == (status == 200)
        check_served(plane)


async def test_a_request_is_sent_again_once_only(tmp_path: Path) -> None:
    """A backend that closes on every call is not asked for ever."""

    async def closes(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target == b"/first":
            await echo(request, writer)
        else:
            writer.transport.abort()

    async with Upstream(closes) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        await plane.request(b"GET", b"/first")
        assert (await plane.request(b"GET", b"/"))[0] == 502
        assert len(primary.requests) == 3


async def test_pools_survive_ten_thousand_time_outs_and_cancellations(tmp_path: Path) -> None:
    """Whatever ends a call, nothing of it stays: no call counted, no connection, no task."""

    async def sometimes(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.body != b"hang":  # else no answer; the connection is read on
            await echo(request, writer)

    async with (
        Upstream(sometimes) as primary,
        dataplane(tmp_path, primary=primary.port, options=Options(timeout_s=0.2)) as plane,
    ):
        pool = plane.worker.pools["primary"]
        for wave in range(20):
            await _five_hundred(plane, wave)
        await until(lambda: pool.in_flight == 0, "the calls to end")
        await until(lambda: pool.statistics().connecting == 0, "the connections")
        late = plane.count("served", "iris", Outcome.TIMEOUT)
        left = plane.count("served", "iris", Outcome.CANCELLED)
        assert late + left == 10_000
        assert min(late, left) > 1_000
        pool.backend = replace(pool.backend, timeout_s=5.0)  # who is well has time
        assert await ask(plane, 5) == [200] * 5
        await until(
            lambda: primary.open_connections == pool.statistics().idle, "the others to close"
        )
        assert not plane.worker._tasks
        check_served(plane)


async def _five_hundred(plane: Plane, wave: int) -> None:
    """Ask 500 times for what never comes; half of the clients leave before it is given up."""
    request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nhang"
    clients = [await plane.connect() for _ in range(500)]
    for _, writer in clients:
        writer.write(request)
    await until(lambda: plane.count("received") == 500 * (wave + 1), "the requests")
    for _, writer in clients[::2]:
        writer.transport.abort()
    answers = await asyncio.gather(*(reader.read(12) for reader, _ in clients[1::2]))
    assert set(answers) == {b"HTTP/1.1 504"}
    for _, writer in clients[1::2]:
        writer.close()
