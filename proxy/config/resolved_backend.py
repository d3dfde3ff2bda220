"""The part of the configuration about backends; import it from `proxy.config.resolved`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address; `port` 0 asks the kernel for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a backend is reached: TCP, TLS over TCP, or a Unix socket.

    Attributes:
        host, port: empty and 0 for a Unix socket.
        socket_path: of a Unix socket, else empty.
    """

    host: str
    port: int
    is_tls: bool = False
    socket_path: str = ""

    def __str__(self) -> str:
        if self.socket_path:
            return f"unix:{self.socket_path}"
        return f"{'https' if self.is_tls else 'http'}://{Address(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How a backend's TLS endpoints are checked, and what is shown to them; empty: the default.

    Attributes:
        ca: PEM file of the authorities that are trusted in place of the system's.
        certificate, key: PEM files of a client certificate.
        server_name: name asked for (SNI) and checked, in place of the endpoint's host.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Active checks: `GET path` each `interval_s`; 2xx and 3xx within `timeout_s` pass.

    Attributes:
        healthy_after, unhealthy_after: checks in a row that bring an endpoint back, or take it out.
    """

    path: str
    interval_s: float
    timeout_s: float
    healthy_after: int
    unhealthy_after: int


@dataclass(frozen=True, slots=True)
class Ejection:
    """When an endpoint that fails is left alone for a while, and how it returns.

    Attributes:
        failures: calls in a row that failed; 0 never ejects.
        first_s, longest_s: the first time out; each further one is longer by that, up to the longest.
        max_share_bp: of the endpoints of a backend, how many may be out at once.
        slow_start_s: after a return, how long until it gets its whole part again.
    """

    failures: int = 5
    first_s: float = 10.0
    longest_s: float = 300.0
    max_share_bp: int = 5_000
    slow_start_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Backend:
    """A named upstream.

    Attributes:
        endpoints: one or more; a call goes to the one with the fewest calls under way.
        connect_timeout_s: until TCP, and TLS where it is spoken, are established.
        timeout_s: whole leg, from dispatch to the last byte; of an event stream, to its head.
        max_in_flight: legs at once; above it the leg is shed.
        keepalive_s: how long an idle pooled connection is kept. Below the 5 s after which common
            Python servers close theirs, so that a request rarely meets a closing connection.
        tls: for `https` endpoints.
        health: None: no active checks.
        dns_refresh_s: how often host names are looked up again.
        first_byte_timeout_s: from dispatch to the answer's head; None: `timeout_s`.
        idle_timeout_s: the longest pause between two pieces of an answer's body. nginx's
            `proxy_read_timeout` is a minute, too.
        stream_timeout_s: whole leg whose answer is an event stream.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    connect_timeout_s: float
    timeout_s: float
    max_in_flight: int
    keepalive_s: float
    tls: UpstreamTls = UpstreamTls()
    health: HealthCheck | None = None
    ejection: Ejection = Ejection()
    dns_refresh_s: float = 30.0
    first_byte_timeout_s: float | None = None
    idle_timeout_s: float = 60.0
    stream_timeout_s: float = 600.0
