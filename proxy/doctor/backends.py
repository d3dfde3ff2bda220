"""Whether backends answer: each address connected to, its certificate checked, its health asked.

What is sent is what the data plane's own health check sends, and nothing to a backend that has none
configured: asking a model anything else may cost money or teach it something.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from proxy.analysis.backend_client import client, extensions
from proxy.config.resolved import Backend, Config, Endpoint
from proxy.config.tls_files import TlsFileError, client_context
from proxy.doctor.findings import Finding, Level, ok
from proxy.telemetry import monotonic_s, wall_ns

#: Clocks that differ by more make two logs hard to read side by side; by more still, orders expire
#: and joins by time miss.
CLOCK_WARNING_S: Final = 2.0
CLOCK_FAULT_S: Final = 60.0
_ALL_WELL: Final = range(200, 400)

Check = tuple[str, Callable[[], Awaitable[list[Finding]]]]


def used_backends(config: Config) -> list[Backend]:
    """Return the backends that a route uses, in the order of the config."""
    used = {route.primary for route in config.routes}
    used |= {candidate.backend for route in config.routes for candidate in route.candidates}
    return [backend for name, backend in config.backends.items() if name in used]


def backend_checks(config: Config) -> Iterator[Check]:
    """Yield a check, with its name, for each endpoint of each backend that a route uses."""
    for backend in used_backends(config):
        for endpoint in backend.endpoints:
            yield f"{backend.name} {endpoint}", functools.partial(_check, backend, endpoint)


async def _check(backend: Backend, endpoint: Endpoint) -> list[Finding]:
    subject = f"{backend.name} {endpoint}"
    try:
        connected = await _connect(backend, endpoint, subject)
        if connected.level is Level.FAULT or backend.health is None:
            return [connected]
        return [connected, *await _ask(backend, endpoint, subject)]
    except TlsFileError as exc:
        return [
            Finding("backend", subject, Level.FAULT, str(exc), "no call can reach it",
                    f"mend backends.{backend.name}.tls.{exc.key}")
        ]  # fmt: skip


async def _connect(backend: Backend, endpoint: Endpoint, subject: str) -> Finding:
    """Connect to every address, TLS included, and send nothing."""
    began_s = monotonic_s()
    try:
        addresses = await _addresses(endpoint)
        tls = client_context(backend.tls) if endpoint.is_tls else None
        for address in addresses:
            async with asyncio.timeout(backend.connect_timeout_s):
                await _open_and_close(backend, endpoint, address, tls)
    except (OSError, TimeoutError) as exc:
        what, mend = _explained(exc, backend, endpoint)
        return Finding("backend", subject, Level.FAULT, what, "calls to it fail", mend)
    took_ms = (monotonic_s() - began_s) * 1000
    places = "" if len(addresses) == 1 else f" at {len(addresses)} addresses"
    how = "connects, its certificate is good" if tls is not None else "connects"
    if tls is not None and not backend.tls.verify:
        return Finding(
            "backend", subject, Level.WARNING, f"connects{places}, its certificate is not checked",
            "whoever answers there gets the users' requests",
            f"give backends.{backend.name}.tls.ca, and leave out verify: false",
        )  # fmt: skip
    return ok("backend", subject, f"{how}{places} ({took_ms:.0f} ms)")


async def _addresses(endpoint: Endpoint) -> list[str]:
    """Return what a host name stands for; a Unix socket has no address."""
    if endpoint.socket_path:
        return [""]
    found = await asyncio.get_running_loop().getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM
    )
    four = [str(where[0]) for family, *_, where in found if family == socket.AF_INET]
    return list(dict.fromkeys(four or [str(where[0]) for *_, where in found]))


async def _open_and_close(
    backend: Backend, endpoint: Endpoint, address: str, tls: ssl.SSLContext | None
) -> None:
    if endpoint.socket_path:
        _, writer = await asyncio.open_unix_connection(endpoint.socket_path)
    else:
        name = (backend.tls.server_name or endpoint.host) if tls is not None else None
        _, writer = await asyncio.open_connection(
            address, endpoint.port, ssl=tls, server_hostname=name
        )
    writer.transport.abort()


async def _ask(backend: Backend, endpoint: Endpoint, subject: str) -> list[Finding]:
    """Ask the health path, and see what the answer says of the backend's clock."""
    health = backend.health
    assert health is not None
    lead = f"GET {health.path}"
    mend = f"look at the server, or mend backends.{backend.name}.health.path"
    why = "workers leave it alone, while another endpoint of the backend is well"
    try:
        async with client(backend, endpoint) as http, asyncio.timeout(health.timeout_s):
            answer = await http.get(
                health.path,
                headers={"user-agent": "understudy-health"},
                extensions=extensions(backend),
            )
    except (httpx.HTTPError, TimeoutError) as exc:
        said = str(exc) or f"no answer in {health.timeout_s:g} s"
        return [Finding("health", subject, Level.FAULT, f"{lead}: {said}", why, mend)]
    if answer.status_code not in _ALL_WELL:
        what = f"{lead} answers {answer.status_code}"
        return [Finding("health", subject, Level.FAULT, what, why, mend)]
    return [ok("health", subject, f"{lead} answers {answer.status_code}"), *_clock(answer, subject)]


def _clock(answer: httpx.Response, subject: str) -> Iterator[Finding]:
    """Compare the clocks by the answer's Date (RFC 9110 section 6.6.1), which has whole seconds."""
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return
    # Within the second that the field names, and the time that the answer took.
    late_s = wall_ns() / 1e9 - date.timestamp()
    apart_s = max(0.0, -late_s, late_s - 1 - answer.elapsed.total_seconds())
    what = f"its clock is {apart_s:.1f} s {'behind' if late_s > 0 else 'ahead of'} ours"
    if apart_s <= CLOCK_WARNING_S:
        yield ok("clock", subject, "its clock agrees with ours")
        return
    yield Finding(
        "clock",
        subject,
        Level.FAULT if apart_s > CLOCK_FAULT_S else Level.WARNING,
        what,
        "records, logs and labels of the two cannot be joined by time",
        "let NTP (chrony, systemd-timesyncd) set both clocks",
    )


def _explained(exc: BaseException, backend: Backend, endpoint: Endpoint) -> tuple[str, str]:
    """Return what went wrong with a connection, and how to mend it."""
    key = f"backends.{backend.name}"
    if isinstance(exc, ConnectionRefusedError | FileNotFoundError):
        return "nothing listens there", f"start the server, or mend {key}.endpoints"
    if isinstance(exc, socket.gaierror):
        return f"no such host: {exc.strerror}", f"mend the name in {key}.endpoints"
    if isinstance(exc, TimeoutError):
        what = f"no connection within {backend.connect_timeout_s:g} s"
        return what, f"is a firewall in between? else raise {key}.connect_timeout"
    if isinstance(exc, ssl.SSLError) or (endpoint.is_tls and isinstance(exc, ConnectionError)):
        return _explained_tls(exc, key)
    detail = str(exc) or type(exc).__name__
    return f"cannot connect to {endpoint}: {detail}", f"mend {key}.endpoints"


def _explained_tls(exc: BaseException, key: str) -> tuple[str, str]:
    if isinstance(exc, ssl.SSLCertVerificationError):
        what = f"its certificate is refused: {exc.verify_message}"
        return what, f"look at {key}.tls.ca and server_name"
    detail = exc.reason if isinstance(exc, ssl.SSLError) else "the handshake was cut off"
    return f"no TLS there: {detail}", f"is {key}.endpoints rather http://?"
