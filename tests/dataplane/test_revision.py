"""A worker that takes over another config: nobody who is being served notices, and the books balance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from proxy.config.resolved import (
    Backend,
    Breaker,
    Candidate,
    Config,
    Endpoint,
    Log,
    Match,
    Redact,
    RedactRule,
    Route,
    Split,
    SplitKind,
    UpstreamTls,
)
from proxy.state.control_page import Part
from proxy.state.kill import Scope, kill
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.streams import CHUNKED, EVENTS, InStep
from tests.support.upstreams import Behaviour, Request, Upstream, answer, hang, unused_port

_USER = b"x-user-id: u\r\n"


def _route(change: Callable[[Route], Route]) -> Callable[[Config], Config]:
    """Return a change of the config's one route."""
    return lambda config: replace(config, routes=(change(config.routes[0]),))


def _without_candidates(config: Config) -> Config:
    config = _route(lambda route: replace(route, candidates=()))(config)
    backends = {"primary": config.backends["primary"]}
    return replace(config, backends=backends)


def _with_backend(name: str, **changes: object) -> Callable[[Config], Config]:
    def adapt(config: Config) -> Config:
        changed: Backend = replace(config.backends[name], **changes)  # type: ignore[arg-type]  # any
        return replace(config, backends={**config.backends, name: changed})

    return adapt


async def _is_let_go(plane: Plane) -> None:
    """Wait until nothing that was replaced is kept any more."""
    revisions = plane.worker.revisions

    def is_empty() -> bool:
        revisions.forget()
        return not revisions.contexts and not revisions.pools

    await until(is_empty, "what was replaced to go")


async def test_a_stream_of_a_candidate_that_is_removed_goes_on_to_its_end(tmp_path: Path) -> None:
    """Its user gets every event, its pair is written, and then its connections are closed."""
    stream = InStep([b"data: %d\n\n" % n for n in range(4)])
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(stream.behaviour(EVENTS + CHUNKED, is_chunked=True)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 10_000}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"{}", _USER))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        old = plane.worker.config.version
        await plane.reload(_without_candidates)
        assert set(plane.worker.pools) == {"primary"}
        assert await plane.request(b"POST", b"/", body=b"{}", extra=_USER)
        assert len(candidate.requests) == 1
        plane.worker.revisions.forget()
        assert plane.worker.revisions.pools, "the stream needs its pool"
        plane.worker.revisions._look_s = float("inf")
        plane.worker.gauges.write(0.0)
        assert plane.count("backend_in_flight", "v2") == 1
        assert await stream.read(reader) == b"".join(stream.pieces)
        await until(lambda: candidate.open_connections == 0, "its connection to close")
        writer.close()
        (line,) = await plane.pairs(1)
        assert (line["config_version"], line["candidate_status"]) == (old, "ok")
        await _is_let_go(plane)
        assert plane.count("backend_in_flight", "v2") == 0
        assert plane.count("served", "iris", "ok") == plane.count("routed", "iris") == 2
        check_ledger(plane)


async def test_a_backend_that_has_not_changed_keeps_its_connection(tmp_path: Path) -> None:
    """The other one gets new ones by its new settings, and the old idle one is closed."""
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(answer(b"{}")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"{}")
        await plane.pairs(1)
        await plane.reload(_with_backend("v2", timeout_s=1.5))
        await until(lambda: candidate.open_connections == 0, "the old connection to close")
        await plane.request(b"POST", b"/", body=b"{}")
        await plane.pairs(2)
        assert (len(primary.raw), len(candidate.raw)) == (1, 2)
        await _is_let_go(plane)
        plane.worker.gauges.write(0.0)
        assert plane.count("backend_connections_opened", "primary") == 1
        assert plane.count("backend_connections_opened", "v2") == 2
        assert plane.count("backend_members", "v2") == 1
        check_ledger(plane)


async def test_what_is_known_of_a_candidate_survives_a_change_elsewhere(tmp_path: Path) -> None:
    """Its breaker stays open; another rate or breaker in the config begins anew."""
    breaker = Breaker(failures=1, open_for_s=60.0)
    async with (
        Upstream(answer(b"{}")) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": unused_port()},
            options=Options(copies={"breaker": breaker}),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"{}")
        await plane.pairs(1)
        (context,) = plane.worker.routes.contexts()
        assert not context.gates[0].breaker.is_closed
        await plane.reload(_route(lambda route: replace(route, replicate_bp=1)))
        (context,) = plane.worker.routes.contexts()
        assert not context.gates[0].breaker.is_closed

        def rated(route: Route) -> Route:
            return replace(route, candidates=(replace(route.candidates[0], mirror_rate=5.0),))

        await plane.reload(_route(rated))
        (context,) = plane.worker.routes.contexts()
        assert context.gates[0].breaker.is_closed


async def test_new_routes_candidates_and_backends_are_counted_beside_the_old_ones(
    tmp_path: Path,
) -> None:
    """No counter moves or starts again; what is new has cells of its own."""
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(answer(b"{}")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"{}")

        def grown(config: Config) -> Config:
            old = config.routes[0]
            v3 = Candidate("v3", "b3", 10_000, 0)
            rose = replace(old, name="rose", match=Match("", "", "/rose", (), {}), candidates=(v3,))
            b3 = replace(config.backends["v2"], name="b3")
            return replace(config, routes=(rose, old), backends={**config.backends, "b3": b3})

        await plane.reload(grown)
        await plane.request(b"POST", b"/", body=b"{}")
        await plane.request(b"POST", b"/rose", body=b"{}")
        lines = await plane.pairs(3)
        assert [line["candidate"] for line in lines].count("v3") == 1
        assert plane.count("routed", "iris") == 2
        assert plane.count("routed", "rose") == 1
        assert plane.count("pairs_journaled", "rose", "v3") == 1
        assert sum(plane.count("latency_us", "iris", "primary", b) for b in _bounds(plane)) == 2
        assert plane.count("received") == 3
        check_ledger(plane)


def _bounds(plane: Plane) -> list[str]:
    layout = plane.worker.stats.layout
    return [v[-1] for f, v, _ in layout.items() if f.name == "latency_us" and v[0] == "rose"][:16]


async def test_a_record_is_redacted_by_the_config_that_its_request_came_under(
    tmp_path: Path,
) -> None:
    """A path that is no longer left out is left out of what was under way, and its version says so."""
    release = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await answer(b'{"secret": 1}')(request, writer)

    async with (
        Upstream(slow) as primary,
        Upstream(answer(b'{"secret": 2}')) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(redact=(RedactRule("secret"),)),
        ) as plane,
    ):
        old = plane.worker.config.version
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"{}", b""))
        await until(lambda: candidate.requests, "the copy")
        new = await plane.reload(
            lambda config: replace(config, record=replace(config.record, redact=Redact((), ())))
        )
        release.set()
        await read_answer(reader, b"POST")
        writer.close()
        await plane.request(b"POST", b"/", body=b"{}")
        first, second = await plane.pairs(2)
        assert (first["config_version"], second["config_version"]) == (old, new.version)
        assert "secret" not in first["primary_body"] + first["candidate_body"]
        assert second["candidate_body"] == '{"secret": 2}'


@pytest.mark.parametrize("is_removed", [False, True])
async def test_a_kill_reaches_a_request_that_began_under_the_config_of_before(
    tmp_path: Path, is_removed: bool
) -> None:
    """Its body was not whole at the reload, so its copies were still to be sent."""
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(answer(b"{}")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        reader, writer = await plane.connect()
        whole = request_bytes(b"POST", b"/", b'{"x": 1}', _USER)
        writer.write(whole[:-3])
        await until(lambda: plane.count("routed", "iris"), "the request")
        same = _route(lambda route: replace(route, replicate_bp=1))
        await plane.reload(_without_candidates if is_removed else same)
        plane.worker.revisions.forget()
        assert plane.worker.revisions.contexts
        plane.change(lambda state: kill(state, Scope(), Part.DEFAULT, "now"))
        writer.write(whole[-3:])
        assert (await read_answer(reader, b"POST"))[0] == 200
        writer.close()
        await plane.pairs(1)
        assert plane.count("mirror_skipped", "iris", "v2", "killed") == 1
        assert not candidate.requests
        check_ledger(plane)


async def test_a_request_that_waits_for_its_body_is_decided_by_the_live_weights(
    tmp_path: Path,
) -> None:
    """Begun before its candidate was removed, and decided after it, it goes to the primary."""
    options = Options(weight_bp={"v2": 10_000}, split=Split(SplitKind.JSON, "user"))
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(answer(b"{}")) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        reader, writer = await plane.connect()
        whole = request_bytes(b"POST", b"/", b'{"user": 1}', b"")
        writer.write(whole[:-3])
        await until(lambda: plane.count("routed", "iris"), "the request")
        await plane.reload(_without_candidates)
        writer.write(whole[-3:])
        assert (await read_answer(reader, b"POST"))[0] == 200
        writer.close()
        assert len(primary.requests) == 1
        assert not candidate.requests
        await _is_let_go(plane)
        check_ledger(plane)


async def test_a_config_that_cannot_be_taken_over_leaves_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, tried again each second, and taken over when it can be."""
    authority = tmp_path / "ca.pem"

    def secured(config: Config) -> Config:
        endpoint = Endpoint("127.0.0.1", 1, is_tls=True)
        tls = UpstreamTls(ca=str(authority))
        return _with_backend("v2", endpoints=(endpoint,), tls=tls)(config)

    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(answer(b"{}")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        before = plane.worker.revision
        with caplog.at_level(logging.ERROR, "understudy.worker"):
            plane.publish(secured)
            await until(lambda: caplog.records, "the refusal")
            assert "ca.pem cannot be read" in caplog.text
            assert (await plane.request(b"POST", b"/", body=b"{}"))[0] == 200
            assert plane.worker.revision == before == plane.worker.stats.revision()
            await plane.pairs(1)
            assert len(candidate.requests) == 1
        authority.write_bytes(_an_authority())
        plane.worker.revisions._look_s = 0.0
        await until(lambda: plane.worker.revision > before, "the second try")
        assert len(caplog.records) == 1


def _an_authority() -> bytes:
    import trustme  # noqa: PLC0415 - 0.2 s that the other tests need not wait

    return trustme.CA().cert_pem.bytes()


async def test_everything_else_that_a_worker_holds_follows(tmp_path: Path) -> None:
    """Limits, deadlines, trusted proxies and the access log; what it is called in `Via` stays."""

    def changed(config: Config) -> Config:
        limits = replace(config.limits, memory_bytes=12_345, connections=17)
        log = Log(access_bp=10_000)
        return replace(config, limits=limits, log=log, trusted_proxies=("10.0.0.0/8",))

    async with (
        Upstream(answer(b"{}")) as primary,
        dataplane(tmp_path, primary=primary.port) as plane,
    ):
        worker = plane.worker
        pseudonym = worker.pseudonym

        def has_log() -> bool:
            return worker.access_log is not None

        await plane.reload(changed)
        assert worker.memory_limit == 12_345
        assert worker.clients.deadlines.max_connections == 17
        assert has_log()
        await plane.request(b"POST", b"/", body=b"{}")
        await until(lambda: plane.count("access_log_lines") == 1, "the line")
        await plane.reload(lambda config: replace(config, log=Log(access_bp=5_000)))
        await plane.reload(lambda config: replace(config, log=Log()))
        assert not has_log()
        await plane.reload(changed)
        await plane.request(b"POST", b"/", body=b"{}")
        await until(lambda: plane.count("access_log_lines") == 2, "the second line")
        assert worker.pseudonym == pseudonym


async def test_what_is_gone_shows_no_level_any_more(tmp_path: Path) -> None:
    """Requests under way, an open breaker, an endpoint left alone: nothing of it stays behind."""
    breaker = Breaker(failures=1, open_for_s=60.0)
    async with (
        Upstream(answer(b"{}")) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": unused_port()},
            options=Options(copies={"breaker": breaker}),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"{}")
        await until(lambda: plane.count("breaker", "iris", "v2") == 2, "the breaker's word")
        plane.worker.cells[plane.worker.stats.layout.index("in_flight", "iris")] = 1

        def renamed(config: Config) -> Config:
            return _route(lambda route: replace(route, name="rose"))(_without_candidates(config))

        await plane.reload(renamed)
        await _is_let_go(plane)
        for level in (("breaker", "iris", "v2"), ("in_flight", "iris"), ("backend_members", "v2")):
            assert plane.count(*level) == 0, level
        assert plane.count("routed", "iris") == 1


async def test_a_hung_copy_of_before_ends_at_its_deadline(tmp_path: Path) -> None:
    """Its pool is gone from the config, and still looked at."""
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(timeout_s=600.0),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"{}")
        await until(lambda: candidate.requests, "the copy")
        await plane.reload(_without_candidates)
        for leg in plane.worker.revisions.pools[0].legs():
            leg.begun_s -= 600.0
            leg.look_s = 0.0
        (line,) = await plane.pairs(1)
        assert line["candidate_status"] == "timeout"
        await _is_let_go(plane)
        check_ledger(plane)


async def test_many_reloads_under_load_lose_nothing_and_keep_nothing(tmp_path: Path) -> None:
    """Candidates come and go with each; every request is answered, every pair written."""
    slow = _after(0.002, b"{}")
    async with (
        Upstream(answer(b"{}")) as primary,
        Upstream(slow) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 3_000}),
        ) as plane,
    ):
        whole = plane.worker.config
        is_over, statuses = False, list[int]()

        def restored(_: Config) -> Config:
            return whole

        def has_answered(count: int) -> bool:
            return len(statuses) > count

        async def user(name: int) -> None:
            reader, writer = await plane.connect()
            number = 0
            while not is_over:
                number += 1
                who = b"x-user-id: %d-%d\r\n" % (name, number)
                writer.write(request_bytes(b"POST", b"/", b"{}", who))
                statuses.append((await read_answer(reader, b"POST"))[0])
            writer.close()

        async with asyncio.TaskGroup() as tasks:
            for name in range(4):
                tasks.create_task(user(name))
            for number in range(20):
                await plane.reload(_without_candidates if number % 2 == 0 else restored)
                await until(partial(has_answered, len(statuses) + 8), "requests")
            is_over = True
        assert set(statuses) == {200}
        await _is_let_go(plane)
        decided = plane.count("pairs_decided", "iris", "v2")
        await plane.pairs(decided)
        assert plane.count("routed", "iris") == len(statuses)
        check_ledger(plane)


def _after(delay_s: float, body: bytes) -> Behaviour:
    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)
        await answer(body)(request, writer)

    return behave
