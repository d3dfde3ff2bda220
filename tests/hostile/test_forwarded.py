"""Clients that claim to be others: believed only behind a proxy that the operator trusts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from proxy.config.resolved import Split, SplitKind
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes
from tests.support.upstreams import Upstream, answer, echo

LOOPBACK = ("127.0.0.0/8", "::1/128")
CLIENTS = [b"203.0.113.%d" % number for number in range(40)]


async def who_serves(plane: Plane, *fields: bytes) -> list[bytes]:
    """Return who answered each request of one connection; `fields` is a line for each of them."""
    found = []
    reader, writer = await plane.connect()
    with closing(writer):
        for field in fields:
            writer.write(request_bytes(b"POST", b"/", b"x", field + b"\r\n"))
            found.append((await read_answer(reader))[2])
    return found


async def test_a_trusted_proxys_clients_are_told_apart(tmp_path: Path) -> None:
    """By `split_by: client_ip`, on one connection, whatever they invent to the left of it."""
    options = Options(
        weight_bp={"v2": 5_000},
        split=Split(SplitKind.CLIENT_IP, ""),
        trusted_proxies=LOOPBACK,
    )
    async with (
        Upstream(answer(b"old")) as old,
        Upstream(answer(b"new")) as new,
        dataplane(
            tmp_path, primary=old.port, candidates={"v2": new.port}, options=options
        ) as plane,
    ):
        plain = await who_serves(plane, *(b"x-forwarded-for: " + each for each in CLIENTS))
        posing = [b"x-forwarded-for: 203.0.113.99, %b, 127.0.0.7" % each for each in CLIENTS]
        standard = [b"forwarded: for=_x, for=%b;proto=https" % each for each in CLIENTS]
        assert set(plain) == {b"old", b"new"}
        assert await who_serves(plane, *posing) == plain
        assert await who_serves(plane, *standard) == plain


async def test_everybody_else_is_who_the_socket_says(tmp_path: Path) -> None:
    """One address, one side, and what backends are told of it is ours."""
    options = Options(
        weight_bp={"v2": 5_000},
        split=Split(SplitKind.CLIENT_IP, ""),
        trusted_proxies=("10.0.0.0/8",),
    )
    async with (
        Upstream(answer(b"old")) as old,
        Upstream(answer(b"new")) as new,
        dataplane(
            tmp_path, primary=old.port, candidates={"v2": new.port}, options=options
        ) as plane,
    ):
        served = await who_serves(plane, *(b"x-forwarded-for: " + each for each in CLIENTS))
        assert len(set(served)) == 1
        for request in old.requests + new.requests:
            assert request.fields[b"x-forwarded-for"] == b"127.0.0.1"


async def test_backends_are_told_the_whole_way(tmp_path: Path) -> None:
    """The chain with the peer at its end; a request without one is the proxy's own."""
    said = (
        b"x-forwarded-for: 203.0.113.1\r\nx-forwarded-proto: https\r\n"
        b"x-forwarded-host: models.example\r\nx-forwarded-user: ann\r\n"
    )
    options = Options(trusted_proxies=LOOPBACK)
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path, primary=up.port, options=options) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            for extra in (said, b""):
                writer.write(request_bytes(b"POST", b"/", b"x", extra))
                assert (await read_answer(reader))[0] == 200
    first, second = (request.fields for request in up.requests)
    assert first[b"x-forwarded-for"] == b"203.0.113.1, 127.0.0.1"
    assert first[b"x-forwarded-proto"] == b"https"
    assert first[b"x-forwarded-host"] == b"models.example"
    assert first[b"x-forwarded-user"] == b"ann"
    assert second[b"x-forwarded-for"] == b"127.0.0.1"
    assert second[b"x-forwarded-proto"] == b"http"
    assert not {b"x-forwarded-host", b"x-forwarded-user"} & second.keys()
