"""The configuration as processes use it: frozen, complete, every value with its unit in its name.

`proxy.config.schema` is what operators write (pydantic, friendly units, defaults);
`proxy.config.load` turns it into the `Config` here and writes it, as JSON, to
`state_dir/config/<version>.json`. Workers and the recorder read that JSON with `loads`, so they
need neither pydantic nor YAML, and all processes agree on one revision.

Percentages are basis points (0 to 10,000), sizes bytes, times seconds.
"""

from __future__ import annotations

import hashlib
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any

import orjson

#: 100% in basis points.
FULL_BP = 10_000


class Protocol(StrEnum):
    """How answers of a route are understood when a prediction is extracted."""

    OPEN_INFERENCE = "open-inference"
    OPENAI = "openai"
    MLFLOW = "mlflow"
    TFSERVING = "tfserving"
    JSON = "json"
    RAW = "raw"


class SplitKind(StrEnum):
    """Where the split key of a request is found."""

    HEADER = "header"
    COOKIE = "cookie"
    JSON = "json"
    CLIENT_IP = "client_ip"
    REQUEST_ID = "request_id"


class Bodies(StrEnum):
    """Which bodies a pair record keeps (DESIGN section 5)."""

    RESPONSES = "responses"
    PREDICTIONS = "predictions"
    FULL = "full"
    NONE = "none"


class HashPolicy(StrEnum):
    """`auto` hashes what is journaled whole; `always` hashes every body, at the worker's cost."""

    AUTO = "auto"
    ALWAYS = "always"


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


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a route takes; empty fields match everything."""

    host: str
    path: str
    path_prefix: str
    methods: tuple[str, ...]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Split:
    """The split key: `name` is the header, the cookie or the JSON path (else empty)."""

    kind: SplitKind
    name: str


@dataclass(frozen=True, slots=True)
class Guard:
    """Which requests may be sent twice; what is empty holds for every request."""

    methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    headers: dict[str, str] = field(default_factory=dict)
    path_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Breaker:
    """When copies to a candidate that does not answer are given up, and tried again.

    Attributes:
        failures: in a row that open it; 0: it never opens.
        open_for_s: how long no copy is sent; doubled each time that the probes fail.
        max_open_for_s: where the doubling ends.
        probes: copies sent after that time; all must be answered before the others follow.
    """

    failures: int = 5
    open_for_s: float = 5.0
    max_open_for_s: float = 60.0
    probes: int = 1


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What is changed in requests to a candidate: header names in lower case; no model: its own."""

    set_headers: dict[str, str] = field(default_factory=dict)
    remove_headers: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend under trial, with its configured mirror percent and canary weight.

    Attributes:
        timeout_s: of a copy, from dispatch to the last byte; 0: the backend's.
        mirror_rate: copies per second of all workers together; 0: no bound.
        rewrite: for copies and for live traffic.
    """

    name: str
    backend: str
    mirror_bp: int
    weight_bp: int
    timeout_s: float = 0.0
    mirror_rate: float = 0.0
    breaker: Breaker = Breaker()
    rewrite: Rewrite = field(default_factory=Rewrite)


@dataclass(frozen=True, slots=True)
class Compare:
    """How two answers are compared; `prediction` is a JMESPath expression or empty."""

    prediction: str
    comparator: str
    rel_tol: float
    abs_tol: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a ramp; `max_duration_s` 0 means no limit."""

    weight_bp: int
    min_pairs: int
    min_duration_s: float
    max_duration_s: float
    approval: str


@dataclass(frozen=True, slots=True)
class Gate:
    """A statistical gate; `budget_s` is for latency only (else 0)."""

    metric: str
    margin: float
    budget_s: float


@dataclass(frozen=True, slots=True)
class Ramp:
    """The plan that moves the canary weight through gates."""

    steps: tuple[Step, ...]
    gates: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A match, a primary and its candidates; `upgrades` are protocol names in lower case."""

    name: str
    match: Match
    protocol: Protocol
    primary: str
    split: Split
    candidates: tuple[Candidate, ...]
    replicate_bp: int
    compare: Compare
    upgrades: tuple[str, ...]
    ramp: Ramp | None
    experiment_id: str
    mirror_only: Guard = field(default_factory=Guard)


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where pairs are shipped; further client settings pass through `options` as given."""

    bootstrap_servers: tuple[str, ...]
    topic_prefix: str
    options: dict[str, str]


@dataclass(frozen=True, slots=True)
class Redact:
    """What never reaches a disk: header names (lower case) and JSON paths such as `a[*].b`."""

    headers: tuple[str, ...]
    json: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What is recorded of a pair, and where it goes; `kafka` None means the local log."""

    kafka: Kafka | None
    bodies: Bodies
    hash: HashPolicy
    redact: Redact


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound that an operator may set (bytes, seconds).

    Attributes:
        tunnel_idle_s: how long no byte may come through a tunnel, either way.
        head_timeout_s: for a whole request head, from its first byte.
        body_timeout_s: between two pieces of a request body, or for one that split_by waits for.
        keep_alive_s: between two requests of a client connection.
        connections: of clients, per worker.
        shutdown_s: from SIGTERM to the end of the last process. Workers, recorders and control stop
            one after the other, so each kind plans with a share of it.
    """

    request_head_bytes: int
    request_body_bytes: int
    mirror_body_bytes: int
    record_body_bytes: int
    memory_bytes: int
    journal_disk_bytes: int
    tunnel_idle_s: float
    head_timeout_s: float
    body_timeout_s: float
    keep_alive_s: float
    connections: int
    shutdown_s: float

    @property
    def workers_stop_s(self) -> float:
        """How long workers may take: for what users are waiting for, then for mirrors."""
        return 0.65 * self.shutdown_s

    @property
    def recorders_stop_s(self) -> float:
        """How long recorders may ship what workers have flushed; the rest waits in the journal."""
        return 0.12 * self.shutdown_s


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin listener; an empty token means none is asked for (loopback only)."""

    listen: Address
    token: str


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS on the traffic listener: absolute paths of PEM files; no `client_ca` asks for none.

    `min_version` is `1.2` or `1.3`.
    """

    certificate: str
    key: str
    client_ca: str
    min_version: str


@dataclass(frozen=True, slots=True)
class Log:
    """The access log: the share of requests in it, and how long a slow one takes (None: any)."""

    access_bp: int = 0
    slow_s: float | None = None


@dataclass(frozen=True, slots=True)
class Otlp:
    """An OpenTelemetry collector; `headers` are secrets."""

    endpoint: str
    headers: dict[str, str]
    sample_bp: int


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What is told to other systems; `otlp` None: no spans are exported."""

    otlp: Otlp | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """One whole configuration. `version` is its hash, the `config_version` of every record.

    Attributes:
        trusted_proxies: networks, as `10.0.0.0/8`, whose word on the client's address is taken.
    """

    version: str
    instance: str
    listen: Address
    tls: Tls | None
    trusted_proxies: tuple[str, ...]
    workers: int
    recorders: int
    state_dir: str
    admin: Admin
    backends: dict[str, Backend]
    routes: tuple[Route, ...]
    record: Record
    limits: Limits
    log: Log = Log()
    telemetry: Telemetry = Telemetry()

    @property
    def scheme(self) -> str:
        """What users' addresses begin with: `http` or `https`."""
        return "http" if self.tls is None else "https"


#: What changes neither answers nor pairs.
_NO_MATTER = (
    "version", "instance", "listen", "tls", "admin", "state_dir", "workers", "recorders", "log",
    "telemetry",
)  # fmt: skip


def digest(config: Config) -> str:
    """Return the config version: 16 hex digits over all that bears on answers and pairs.

    Left out is what differs between replicas of one configuration (names, addresses, folders, the
    listener's TLS, numbers of processes), what is only told about them (logs, spans) and what is
    secret (the token, the Kafka client's options, the values of headers that are set for a
    candidate): the version is in every record, and a hash of a password can be guessed at leisure.
    """
    plain = orjson.loads(orjson.dumps(config))
    for key in _NO_MATTER:
        plain.pop(key)
    if plain["record"]["kafka"] is not None:
        plain["record"]["kafka"].pop("options")
    for route in plain["routes"]:
        for candidate in route["candidates"]:
            rewrite = candidate["rewrite"]
            rewrite["set_headers"] = sorted(rewrite["set_headers"])
    canonical = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=8).hexdigest()


def dumps(config: Config) -> bytes:
    """Return the config as JSON, whole, including what is secret (keep the file 0600)."""
    return orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def loads(data: bytes) -> Config:
    """Return the config that `dumps` wrote.

    Raises:
        KeyError: a field is missing, which means that another version of Understudy wrote it.
    """
    config = _build(Config, orjson.loads(data))
    assert isinstance(config, Config)
    return config


def _build(kind: Any, value: Any) -> Any:
    """Return `value`, as JSON gave it, as the annotated type `kind`."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in fields(kind)})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_build(args[0], item) for item in value)
    if origin is dict:
        return {key: _build(args[1], item) for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _build(args[0], value)
    if kind is float:
        return float(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, StrEnum) else value
