"""TLS to backends: verified by default, with an authority, a name and a certificate of one's own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from proxy.config.resolved import Endpoint, UpstreamTls
from tests.support.authority import Authority
from tests.support.dataplane import dataplane, until
from tests.support.endpoints import give_endpoints
from tests.support.upstreams import Upstream, echo

MIB = 1 << 20


async def outcome(
    tmp_path: Path, server: ssl.SSLContext, tls: UpstreamTls, host: str = "127.0.0.1"
) -> tuple[int, bytes, bytes]:
    """Ask a TLS backend through the proxy; return status, body and Proxy-Status."""
    async with (
        Upstream(echo, tls=server) as primary,
        dataplane(tmp_path, primary=primary.port) as plane,
    ):
        give_endpoints(plane, Endpoint(host, primary.port, is_tls=True), tls=tls)
        status, fields, body = await plane.request(b"POST", b"/", body=b"secret")
        return status, body, fields.get(b"proxy-status", b"")


async def test_a_trusted_certificate_is_accepted(tmp_path: Path) -> None:
    """By an authority of one's own."""
    authority = Authority(tmp_path)
    found = await outcome(
        tmp_path, authority.server("127.0.0.1"), UpstreamTls(ca=str(authority.ca_file))
    )
    assert found == (200, b"secret", b"")


async def test_an_unknown_authority_is_refused_by_default(tmp_path: Path) -> None:
    """Nothing is sent to whoever answers there."""
    status, body, _ = await outcome(
        tmp_path, Authority(tmp_path).server("127.0.0.1"), UpstreamTls()
    )
    assert status == 502
    assert b"secret" not in body


async def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    """A certificate for another host proves nothing."""
    authority = Authority(tmp_path)
    server = authority.server("other.test")
    assert (await outcome(tmp_path, server, UpstreamTls(ca=str(authority.ca_file))))[0] == 502


async def test_the_name_to_ask_for_can_be_given(tmp_path: Path) -> None:
    """It is sent as SNI, and the certificate must be for it."""
    authority = Authority(tmp_path)
    server = authority.server("model.test")
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    tls = UpstreamTls(ca=str(authority.ca_file), server_name="model.test")
    assert (await outcome(tmp_path, server, tls))[0] == 200
    assert asked == ["model.test"]


async def test_verification_can_be_turned_off(tmp_path: Path) -> None:
    """For tests, and said so in the config."""
    server = Authority(tmp_path).server("other.test")
    assert (await outcome(tmp_path, server, UpstreamTls(verify=False)))[0] == 200


@pytest.mark.parametrize("shows", [True, False])
async def test_a_client_certificate_is_shown(tmp_path: Path, shows: bool) -> None:
    """A backend that wants one gets it; without one it answers nothing."""
    authority = Authority(tmp_path)
    server = authority.server("127.0.0.1", wants_client=True)
    tls = UpstreamTls(
        ca=str(authority.ca_file), certificate=authority.client_file() if shows else ""
    )
    assert (await outcome(tmp_path, server, tls))[0] == (200 if shows else 502)


async def test_large_bodies_and_keep_alive(tmp_path: Path) -> None:
    """Megabytes both ways, mirrored as well, on one connection each."""
    authority = Authority(tmp_path)
    body = bytes(range(256)) * (2 * MIB // 256)
    async with (
        Upstream(echo, tls=authority.server("127.0.0.1")) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        give_endpoints(
            plane,
            Endpoint("127.0.0.1", primary.port, is_tls=True),
            tls=UpstreamTls(ca=str(authority.ca_file)),
        )
        for number in range(3):
            sent = body[: MIB // 2 * (number + 1) - 1]
            assert (await plane.request(b"POST", b"/", body=sent))[2] == sent
        await until(lambda: len(primary.requests) == 3, "three requests")
        assert len(primary.raw) == 1
