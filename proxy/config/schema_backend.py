"""Backends in the config file; see `proxy.config.schema`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.config.resolved import FULL_BP
from proxy.config.schema_base import DAY_S, HOUR_S, MINUTE_S, Strict
from proxy.config.values import (
    BasisPoints,
    EndpointUrl,
    FilePath,
    Host,
    Seconds,
    UrlPath,
    Whole,
)


class UpstreamTlsFile(Strict):
    """TLS to the `https` endpoints of a backend."""

    ca: FilePath | None = None
    """PEM file of the authorities to trust; left out: the system's."""
    certificate: FilePath | None = None
    """PEM file of the client certificate, with its chain; left out: none is shown."""
    key: FilePath | None = None
    """PEM file of the client certificate's key; left out: it is in `certificate`."""
    server_name: Host = ""
    """Name to ask for (SNI) and to check; empty: the endpoint's host."""
    verify: bool = True
    """false: any certificate is believed. Only for tests."""


class HealthFile(Strict):
    """Active health checks of a backend's endpoints."""

    path: UrlPath
    """What is asked for by GET; an answer of 200 to 399 passes."""
    interval: Annotated[Seconds, Field(ge=0.1, le=HOUR_S)] = 5.0
    """Time between two checks of an endpoint, by each worker."""
    timeout: Annotated[Seconds, Field(gt=0, le=MINUTE_S)] = 1.0
    """Time for one check."""
    healthy_after: Annotated[Whole, Field(ge=1, le=100)] = 2
    """Checks in a row that must pass before an endpoint is used again."""
    unhealthy_after: Annotated[Whole, Field(ge=1, le=100)] = 3
    """Checks in a row that must fail before an endpoint is left out."""


class EjectionFile(Strict):
    """When an endpoint whose calls fail is left alone for a while."""

    failures: Annotated[Whole, Field(ge=0, le=10_000)] = 5
    """Failed calls in a row (no connection, reset, time-out, 502 to 504); 0: never."""
    first: Annotated[Seconds, Field(gt=0, le=HOUR_S)] = 10.0
    """How long it is left alone the first time; each further time that much longer."""
    longest: Annotated[Seconds, Field(gt=0, le=DAY_S)] = 5 * MINUTE_S
    """The longest time that it is left alone."""
    max_share: BasisPoints = FULL_BP // 2
    """Share of the backend's endpoints that may be left alone at once."""
    slow_start: Annotated[Seconds, Field(ge=0, le=HOUR_S)] = 10.0
    """Time over which an endpoint that returns gets its whole part of the calls again."""


class BackendFile(Strict):
    """A named upstream."""

    endpoints: Annotated[tuple[EndpointUrl, ...], Field(min_length=1, max_length=256)]
    """http://host:port, https://host:port or unix:/path; the one with the fewest calls is asked."""
    connect_timeout: Annotated[Seconds, Field(gt=0, le=MINUTE_S)] = 1.0
    """Time for a connection to be established, TLS included."""
    first_byte_timeout: Annotated[Seconds, Field(gt=0, le=DAY_S)] | None = None
    """Time for the head of the answer, from dispatch; left out: as long as `timeout`."""
    idle_timeout: Annotated[Seconds, Field(gt=0, le=DAY_S)] = MINUTE_S
    """The longest pause between two pieces of an answer's body."""
    timeout: Annotated[Seconds, Field(gt=0, le=DAY_S)] = 30.0
    """Time for a whole call, from dispatch to the last byte; of an event stream, to its head."""
    stream_timeout: Annotated[Seconds, Field(gt=0, le=7 * DAY_S)] | None = None
    """Time for a whole call whose answer is an event stream; left out: 10m, or `timeout` if longer."""
    max_in_flight: Annotated[Whole, Field(ge=1, le=100_000)] = 1024
    """Calls at once; above it a call is shed."""
    keepalive: Annotated[Seconds, Field(ge=0, le=HOUR_S)] = 4.0
    """How long an idle connection is kept. Stay below what the backend itself allows (5s is common)."""
    tls: UpstreamTlsFile = UpstreamTlsFile()
    """TLS to `https` endpoints; certificates are verified by default."""
    health: HealthFile | None = None
    """Active checks; left out: none."""
    ejection: EjectionFile = EjectionFile()
    """When an endpoint whose calls fail is left alone."""
    dns_refresh: Annotated[Seconds, Field(ge=1, le=DAY_S)] = 30.0
    """How often host names of endpoints are looked up again."""
