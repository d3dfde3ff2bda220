"""TLS on the listener: the same proxy behind it, and handshakes that go wrong."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from proxy.config.resolved import Tls
from proxy.config.tls_files import TlsFileError
from proxy.dataplane import event_loop
from proxy.dataplane.event_loop import Loop
from proxy.dataplane.half_closed import look_at_unread
from proxy.dataplane.tls import Certificates
from proxy.state.stats_page import Outcome
from tests.support.authority import Authority
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.upstreams import Upstream, echo, hang

MIB = 2**20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority, and a listener's files."""
    return Authority(tmp_path)


async def _connect(plane: Plane, context: ssl.SSLContext) -> Streams:
    return await asyncio.open_connection("127.0.0.1", plane.port, ssl=context)


async def _ask(plane: Plane, context: ssl.SSLContext, body: bytes = b"{}") -> tuple[int, bytes]:
    reader, writer = await _connect(plane, context)
    try:
        writer.write(request_bytes(b"POST", b"/x", body, b""))
        status, _, answer = await read_answer(reader)
    finally:
        writer.close()
    return status, answer


async def _serial(plane: Plane, context: ssl.SSLContext) -> str:
    _, writer = await _connect(plane, context)
    found = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return str(found)


async def test_requests_are_served_and_mirrored_over_tls(
    tmp_path: Path, authority: Authority
) -> None:
    """HTTP/1.1 whatever the client offers beside it; backends learn that it was https."""
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        Upstream(echo) as up,
        Upstream(echo) as v2,
        dataplane(
            tmp_path / "state",
            primary=up.port,
            candidates={"v2": v2.port},
            options=Options(tls=authority.tls),
        ) as plane,
    ):
        reader, writer = await _connect(plane, context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        for _ in range(2):
            writer.write(request_bytes(b"POST", b"/x", b"hello", b""))
            assert (await read_answer(reader))[::2] == (200, b"hello")
        writer.close()
        assert len(await plane.pairs(2)) == 2
    assert up.requests[0].fields[b"x-forwarded-proto"] == b"https"
    assert v2.requests[0].fields[b"x-forwarded-proto"] == b"https"


async def test_large_bodies_pass_both_ways(tmp_path: Path, authority: Authority) -> None:
    """Byte for byte, and more of them than all buffers hold."""
    body = bytes(range(256)) * (8 * MIB // 256)
    options = Options(tls=authority.tls)
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
    ):
        assert await _ask(plane, authority.client(), body) == (200, body)


async def test_a_refusal_reaches_a_client_that_is_still_sending(
    tmp_path: Path, authority: Authority
) -> None:
    """Closing with unread bytes must not take the answer away."""
    options = Options(tls=authority.tls, limits={"request_body_bytes": MIB})
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
    ):
        reader, writer = await _connect(plane, authority.client())
        head = b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n" % (8 * MIB) + bytes(8 * MIB))
        assert (await read_answer(reader))[0] == 413
        writer.close()


async def test_websockets_pass_over_tls(tmp_path: Path, authority: Authority) -> None:
    """The end of either side ends the tunnel: TLS is never half closed here."""

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    options = Options(tls=authority.tls)
    async with serve(talk, "127.0.0.1", 0, max_size=None, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with dataplane(tmp_path / "state", primary=port, options=options) as plane:
            client = connect(
                f"wss://127.0.0.1:{plane.port}/", ssl=authority.client(), max_size=None,
                compression=None, proxy=None, open_timeout=PATIENCE_S,
            )  # fmt: skip
            async with client as socket:
                await socket.send(b"x" * 4 * MIB)
                assert await socket.recv() == b"x" * 4 * MIB
            aborted = await client
            aborted.transport.abort()
            await until(lambda: plane.count("served", "iris", Outcome.OK) == 2, "both to end")
            assert plane.count("tunnels_open", "iris") == 0


async def test_a_client_that_trusts_another_authority_refuses(
    tmp_path: Path, authority: Authority
) -> None:
    """And nothing of it is counted as a request."""
    (tmp_path / "other").mkdir()
    options = Options(tls=authority.tls)
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(plane, Authority(tmp_path / "other").client())
        assert plane.count("received") == 0


async def test_client_certificates_are_required_where_an_authority_is_named(
    tmp_path: Path, authority: Authority
) -> None:
    """With one of that authority: served. Without, or of another one: not even a request."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    stranger = other.client(has_certificate=True)
    stranger.load_verify_locations(authority.ca_file)
    options = Options(tls=replace(authority.tls, client_ca=str(authority.ca_file)))
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
    ):
        assert await _ask(plane, authority.client(has_certificate=True)) == (200, b"{}")
        for context in (authority.client(), stranger):
            # In TLS 1.3 a client learns of it with its first read.
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await _ask(plane, context)
        assert plane.count("received") == 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_no_version_below_the_lowest_is_spoken(
    tmp_path: Path, authority: Authority, version: str
) -> None:
    """A client that stops at 1.2 is served where 1.2 is the lowest."""
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    options = Options(tls=replace(authority.tls, min_version=version))
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
    ):
        if version == "1.2":
            assert (await _ask(plane, context))[0] == 200
        else:
            with pytest.raises(OSError):  # uvloop closes before the alert is out
                await _ask(plane, context)
        assert plane.count("received") == (version == "1.2")


def _on_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Run on the loop of a worker: the limit is the loop's."""

    async def run() -> None:
        await work()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())


@pytest.mark.parametrize(
    "first", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"],
    ids=["silent", "half a hello", "plain HTTP"],
)  # fmt: skip
def test_a_handshake_that_does_not_come_ends_the_connection(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    first: bytes,
) -> None:
    """In time, and without a word in the log that an attacker could fill."""
    monkeypatch.setattr(event_loop, "HANDSHAKE_S", 0.8)

    async def check() -> None:
        options = Options(tls=authority.tls)
        async with (
            Upstream(echo) as up,
            dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
        ):
            reader, writer = await plane.connect()
            try:
                writer.write(first)
                await asyncio.wait_for(reader.read(), PATIENCE_S)
            finally:
                writer.transport.abort()
            for _ in range(
                10
            ):  # a good handshake has no longer, and a machine may stand still in it
                with suppress(OSError, asyncio.IncompleteReadError):
                    assert await _ask(plane, authority.client()) == (200, b"{}")
                    break
            else:
                raise AssertionError("nobody is served afterwards")

    with caplog.at_level(logging.WARNING):
        _on_loop(check)
    assert caplog.records == []


async def test_a_renewed_certificate_is_used_for_new_connections(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Open connections stay; half-renewed files change nothing and are told once, without a key."""
    caplog.set_level(logging.INFO, "understudy.tls")
    options = Options(tls=authority.tls)
    context = authority.client()
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path / "state", primary=up.port, options=options) as plane,
    ):
        certificates = plane.certificates
        assert certificates is not None
        certificates.look_every_s = 0.01
        certificates.start()
        old = await _serial(plane, context)
        reader, writer = await _connect(plane, context)
        secret = authority.half_issue()
        await until(lambda: caplog.records, "the key that does not fit to be told")
        await asyncio.sleep(0.05)  # several looks
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "the old certificate stays in use" in caplog.text
        assert await _serial(plane, context) == old
        authority.issue()
        await until(lambda: "has been renewed" in caplog.text, "the renewal")
        assert await _serial(plane, context) != old
        writer.write(request_bytes(b"POST", b"/x", b"{}", b""))
        assert (await read_answer(reader))[0] == 200
        writer.close()
        assert len(secret) > 20
        assert secret not in caplog.text
        certificates.look_every_s = 3600.0


def test_files_that_cannot_be_used_are_an_error_with_their_key(tmp_path: Path) -> None:
    """For a worker that is started again while they are broken."""
    tls = Tls(str(tmp_path / "gone"), str(tmp_path / "gone"), "", "1.2")
    loop = Loop()
    with pytest.raises(TlsFileError) as caught:
        Certificates(tls, loop)
    loop.close()
    assert caught.value.key == "certificate"


async def test_a_held_client_that_is_just_being_lost_does_not_trip_the_tick(
    tmp_path: Path, authority: Authority
) -> None:
    """Between the end of TLS and word of it there is no socket to look at; the tick goes on."""
    async with (
        Upstream(hang) as up,
        dataplane(tmp_path / "state", primary=up.port, options=Options(tls=authority.tls)) as plane,
    ):
        _, writer = await _connect(plane, authority.client())
        writer.write(2 * request_bytes(b"POST", b"/x", b"hello", b""))  # the second one waits
        await until(lambda: plane.worker.unread, "the client to be held")
        (client,) = plane.worker.unread
        client.transport.abort()
        await until_turn(lambda: client.transport.get_extra_info("socket") is None)
        assert client.unread_exchange() is not None
        look_at_unread(client)
        await until(lambda: not plane.connections, "the client to be gone")
        writer.close()


async def until_turn(condition: Callable[[], bool]) -> None:
    """Pass single turns of the loop until the condition holds."""
    for _ in range(10):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("ten turns in vain")
