"""What operators write: the YAML, key by key, with defaults and ranges.

A model here decides about one mapping by itself. What needs two places of the file (a backend that
a route names, ports that collide) is `proxy.config.cross_checks`; `proxy.config.resolve` makes the
`Config` that processes read.

The text below each key is its description in the JSON Schema. `config/reference.yaml` shows every
key with its default; tests hold the three together.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.config.resolved import Address, Bodies, DropPolicy, Fsync, HashPolicy
from proxy.config.schema_backend import BackendFile
from proxy.config.schema_base import DAY_S, GIB, HOUR_S, KIB, MIB, Strict
from proxy.config.schema_redact import RedactFile
from proxy.config.schema_route import RouteFile
from proxy.config.values import (
    BasisPoints,
    Bootstrap,
    Bytes,
    FilePath,
    Folder,
    HeaderName,
    HeaderValue,
    InstanceName,
    KafkaOption,
    Listener,
    Name,
    Network,
    OptionText,
    OtlpEndpoint,
    Seconds,
    SecretKey,
    TlsVersion,
    Token,
    TopicPrefix,
    Whole,
)


class AdminFile(Strict):
    """The admin listener: API, dashboard and metrics."""

    listen: Listener = Address("127.0.0.1", 9090)
    """Address of the admin API. One that is not loopback needs a token."""
    token: Token = ""
    """Bearer token that the admin API asks for; empty: none (loopback only)."""


class TlsFile(Strict):
    """TLS on the traffic listener."""

    certificate: FilePath
    """PEM file with the certificate and its chain; relative to the current folder."""
    key: FilePath
    """PEM file with the private key, without a passphrase."""
    client_ca: FilePath | None = None
    """PEM file with the authorities whose client certificates are asked for; left out: none."""
    min_version: TlsVersion = "1.2"
    """Lowest TLS version that is spoken: 1.2 or 1.3."""


class KafkaFile(Strict):
    """Kafka as the sink of pairs."""

    bootstrap_servers: Annotated[tuple[Bootstrap, ...], Field(min_length=1, max_length=64)]
    """Brokers to start from, host:port."""
    topic_prefix: TopicPrefix = "shadow"
    """Pairs go to the topic PREFIX.pairs.v1."""
    options: dict[KafkaOption, OptionText] = {}
    """Further client settings by Kafka's own names, such as security.protocol."""


class RecordFile(Strict):
    """What is recorded of a pair, and where it goes."""

    kafka: KafkaFile | None = None
    """Ship pairs to Kafka; left out: to files under state_dir/pairs."""
    bodies: Bodies = Bodies.RESPONSES
    """responses: both answers. predictions: only what was compared. full: the request too. none."""
    hash: HashPolicy = HashPolicy.AUTO
    """auto: hash bodies that are recorded whole. always: every body, at the worker's cost."""
    hash_key: SecretKey = ""
    """Secret of unit_hash; empty: made once and kept in state_dir. Replicas need the same one."""
    niceness: Annotated[Whole, Field(ge=0, le=19)] = 10
    """How far recorders step back for whoever serves users, as nice(1) counts; 0: not at all."""
    redact: RedactFile = RedactFile()
    """What never reaches a disk."""


class ReplicasFile(Strict):
    """This instance is one of several that agree on weights, kills and ramps, through Kafka."""

    group: Name = "default"
    """Name of the group; replicas of one group and topic prefix agree."""
    takeover: Annotated[Seconds, Field(ge=0.5, le=300)] = 6.0
    """A replica that hears nothing for so long is cut off; a leader's lead passes on. Brokers allow 6s or more."""


class JournalFile(Strict):
    """How workers write their journals, which pairs go to first."""

    segment: Annotated[Bytes, Field(ge=64 * KIB, le=4 * GIB)] = 64 * MIB
    """A segment file ends at this size, or at an eighth of its worker's disk budget, if that is less."""
    segment_age: Annotated[Seconds, Field(ge=1, le=7 * DAY_S)] = 600.0
    """A segment file ends at this age; what is shipped leaves the journal at the latest then."""
    drop: DropPolicy = DropPolicy.OLDEST
    """When limits.journal_disk is full. oldest: the oldest segment that was not shipped. newest: new pairs."""
    fsync: Fsync = Fsync.NONE
    """What a power cut takes. none: about 35 s of pairs. interval: those of fsync_interval. flush: of 20 ms."""
    fsync_interval: Annotated[Seconds, Field(ge=0.05, le=HOUR_S)] = 1.0
    """How often `fsync: interval` syncs."""


class LogFile(Strict):
    """The access log: one JSON line on stderr for a request."""

    access: BasisPoints = 0
    """Share of requests that get a line; 0%: none."""
    slow: Annotated[Seconds, Field(gt=0, le=DAY_S)] | None = None
    """A request that takes this long gets one in any case; left out: none does."""


class OtlpFile(Strict):
    """An OpenTelemetry collector, spoken to by OTLP over HTTP. Needs `understudy[otel]`."""

    endpoint: OtlpEndpoint
    """Where it listens; /v1/traces is added."""
    headers: dict[HeaderName, HeaderValue] = {}
    """Header fields of every call, such as an authorization; secrets."""
    sample: BasisPoints = 0
    """Share of the traces exported that their starter has not sampled; sampled ones always are."""


class TelemetryFile(Strict):
    """What is told to other systems."""

    otlp: OtlpFile | None = None
    """Export spans of recorded exchanges; left out: nothing is exported."""


class LimitsFile(Strict):
    """Every bound that may be set."""

    request_head: Annotated[Bytes, Field(ge=KIB, le=MIB)] = 32 * KIB
    """Request line and headers together; more is answered 431."""
    request_body: Annotated[Bytes, Field(ge=0, le=64 * GIB)] = 64 * MIB
    """Request body; more is answered 413."""
    mirror_body: Annotated[Bytes, Field(ge=0, le=GIB)] = 8 * MIB
    """A request with a longer body is served and not mirrored."""
    mirror_response: Annotated[Bytes, Field(ge=64 * KIB, le=64 * GIB)] = 64 * MIB
    """A copy whose answer is longer is ended (reset), and its connection closed; users' answers have no bound."""
    mirror_lag: Annotated[Seconds, Field(ge=0, le=10)] = 0.005
    """A worker whose event loop is later than this, with dozens of requests waiting, makes no copies; 0: it always does."""
    record_body: Annotated[Bytes, Field(ge=0, le=GIB)] = 256 * KIB
    """Bodies are cut here in records."""
    memory: Annotated[Bytes, Field(ge=MIB, le=1024 * GIB)] = 256 * MIB
    """Bodies that one worker keeps at a time for mirrors and records; a quarter more while the disk hangs."""
    journal_disk: Annotated[Bytes, Field(ge=MIB)] = 10 * GIB
    """Journals of all workers together; when full, pairs are dropped (see journal.drop) and counted."""
    tunnel_idle: Annotated[Seconds, Field(ge=1, le=7 * DAY_S)] = HOUR_S
    """A tunnel (see upgrades) through which no byte came for so long is ended."""
    head_timeout: Annotated[Seconds, Field(ge=0.1, le=HOUR_S)] = 10.0
    """For a whole request head, from its first byte; then 408."""
    body_timeout: Annotated[Seconds, Field(ge=0.1, le=HOUR_S)] = 30.0
    """Between two pieces of a request body, or for all of one that split_by waits for; then 408."""
    keep_alive: Annotated[Seconds, Field(ge=0.1, le=DAY_S)] = 75.0
    """How long a client connection may be idle between two requests; then it is closed."""
    connections: Annotated[Whole, Field(ge=1, le=1_000_000)] = 8192
    """Client connections of one worker, and at most 3/4 of its file descriptors; above it idle ones make room, else 503."""
    shutdown: Annotated[Seconds, Field(ge=2, le=HOUR_S)] = 8.0
    """The whole stop after SIGTERM; requests in flight get about half of it. Docker allows 10 s."""


class ConfigFile(Strict):
    """The whole config file of Understudy."""

    listen: Listener = Address("127.0.0.1", 8080)
    """Address that takes the traffic; port 0 asks for a free one."""
    tls: TlsFile | None = None
    """TLS on that address; left out: plain HTTP."""
    trusted_proxies: Annotated[tuple[Network, ...], Field(max_length=256)] = ()
    """Networks whose X-Forwarded-* and Forwarded fields are believed; empty: nobody's."""
    workers: Annotated[Whole, Field(ge=1, le=256)] = 1
    """Processes that serve traffic."""
    recorders: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Processes that compare and ship pairs; at most one per worker."""
    instance: InstanceName | None = None
    """Name of this instance in records; left out: the host name."""
    state_dir: Folder = "./state"
    """Folder for journals, kill switch and resolved configs; relative to the current folder."""
    admin: AdminFile = AdminFile()
    """The admin API."""
    backends: Annotated[dict[Name, BackendFile], Field(min_length=1, max_length=256)]
    """The upstreams by name."""
    routes: Annotated[tuple[RouteFile, ...], Field(min_length=1, max_length=256)]
    """The first route that matches a request takes it."""
    record: RecordFile = RecordFile()
    """What is recorded, and where it goes."""
    replicas: ReplicasFile | None = None
    """Agree with other instances through record.kafka; left out: this instance is on its own."""
    journal: JournalFile = JournalFile()
    """How workers write their journals, which pairs go to first."""
    log: LogFile = LogFile()
    """The access log."""
    telemetry: TelemetryFile = TelemetryFile()
    """What is told to other systems."""
    limits: LimitsFile = LimitsFile()
    """Every bound that may be set."""
