"""The configuration as processes use it: frozen, complete, every value with its unit in its name.

`proxy.config.schema` is what operators write (pydantic, friendly units, defaults);
`proxy.config.load` turns it into the `Config` here and writes it, as JSON, to
`state_dir/config/<version>.json`. Workers and the recorder read that JSON with `loads`, so they
need neither pydantic nor YAML, and all processes agree on one revision.

Backends and routes have modules of their own; everything is imported from here.

Percentages are basis points (0 to 10,000), sizes bytes, times seconds.
"""

from __future__ import annotations

import functools
import hashlib
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any

import orjson

from proxy.config.resolved_backend import (
    Address,
    Backend,
    Ejection,
    Endpoint,
    HealthCheck,
    UpstreamTls,
)
from proxy.config.resolved_record import Bodies, Redact, RedactAction, RedactRule
from proxy.config.resolved_route import (
    FULL_BP,
    Breaker,
    CanaryGuard,
    Candidate,
    Compare,
    Gate,
    Guard,
    Match,
    Protocol,
    Ramp,
    Rewrite,
    Route,
    Segment,
    Split,
    SplitKind,
    Step,
    Webhook,
)

__all__ = [
    "FULL_BP",
    "Address",
    "Admin",
    "Backend",
    "Bodies",
    "Breaker",
    "CanaryGuard",
    "Candidate",
    "Compare",
    "Config",
    "Ejection",
    "Endpoint",
    "Gate",
    "Guard",
    "HashPolicy",
    "HealthCheck",
    "Kafka",
    "Limits",
    "Log",
    "Match",
    "Otlp",
    "Protocol",
    "Ramp",
    "Record",
    "Redact",
    "RedactAction",
    "RedactRule",
    "ReplicaGroup",
    "Rewrite",
    "Route",
    "Segment",
    "Split",
    "SplitKind",
    "Step",
    "Telemetry",
    "Tls",
    "UpstreamTls",
    "Webhook",
    "digest",
    "dumps",
    "loads",
]


class HashPolicy(StrEnum):
    """`auto` hashes what is journaled whole; `always` hashes every body, at the worker's cost."""

    AUTO = "auto"
    ALWAYS = "always"


class DropPolicy(StrEnum):
    """Which pairs go when the journals' disk budget is full."""

    OLDEST = "oldest"
    NEWEST = "newest"


class Fsync(StrEnum):
    """When what is journaled is made to survive a power cut: see `proxy.journal.janitor`."""

    NONE = "none"
    INTERVAL = "interval"
    FLUSH = "flush"


@dataclass(frozen=True, slots=True)
class Journal:
    """How workers write their journals.

    Attributes:
        segment_bytes, segment_age_s: a segment ends when it is as large or as old as that; with a
            small disk budget sooner.
    """

    segment_bytes: int = 64 * 1024 * 1024
    segment_age_s: float = 600.0
    drop: DropPolicy = DropPolicy.OLDEST
    fsync: Fsync = Fsync.NONE
    fsync_interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where pairs are shipped; further client settings pass through `options` as given."""

    bootstrap_servers: tuple[str, ...]
    topic_prefix: str
    options: dict[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """What is recorded of a pair, and where it goes; `kafka` None means the local log.

    Attributes:
        hash_key: secret of `unit_hash`; empty: the one that is kept in `state_dir`.
        niceness: of recorders, above that of the launcher.
    """

    kafka: Kafka | None
    bodies: Bodies
    hash: HashPolicy
    redact: Redact
    hash_key: str = field(default="", repr=False)
    niceness: int = 10

    def bodies_of(self, route: Route) -> Bodies:
        """Return which bodies are kept of a route's pairs: its own word, or the word for all."""
        return self.bodies if route.bodies is None else route.bodies

    def rules_of(self, route: Route) -> tuple[RedactRule, ...]:
        """Return what is redacted in a route's bodies: the rules for all, and its own."""
        return self.redact.json + route.redact


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound that an operator may set (bytes, seconds).

    Attributes:
        mirror_response_bytes: read of the answer to a copy; users' answers have no bound.
        mirror_lag_s: of the event loop above which a worker may be overloaded, and makes no copies; 0: never.
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
    mirror_response_bytes: int
    mirror_lag_s: float
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
        """How long a recorder that ends waits while its sink takes nothing; one that is replaced has no more."""
        return 0.12 * self.shutdown_s

    @property
    def recorders_leave_s(self) -> float:
        """When recorders leave what is not shipped in the journal: since the stop began."""
        return 0.87 * self.shutdown_s


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin listener; an empty token means none is asked for (loopback only)."""

    listen: Address
    token: str


@dataclass(frozen=True, slots=True)
class ReplicaGroup:
    """The replicas that agree with this one.

    Attributes:
        takeover_s: after so long in silence a replica is cut off, and a lead passes on.
    """

    group: str
    takeover_s: float = 6.0


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
        replicas: None: this instance is on its own.
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
    journal: Journal = Journal()
    replicas: ReplicaGroup | None = None

    @property
    def scheme(self) -> str:
        """What users' addresses begin with: `http` or `https`."""
        return "http" if self.tls is None else "https"


#: What changes neither answers nor pairs.
_NO_MATTER = (
    "version", "instance", "listen", "tls", "admin", "state_dir", "workers", "recorders", "log",
    "telemetry", "journal", "replicas",
)  # fmt: skip


def digest(config: Config) -> str:
    """Return the config version: 16 hex digits over all that bears on answers and pairs.

    Left out is what differs between replicas of one configuration (names, addresses, folders, the
    listener's TLS, numbers and niceness of processes, how journals are written, their group), what is only
    told of them (logs, spans) and what is secret (the token, the Kafka client's options, the keys of hashes, the
    values of headers that are set for a candidate): the version is in every record, and a hash of a
    password can be guessed at leisure.
    """
    plain = orjson.loads(orjson.dumps(config))
    for key in _NO_MATTER:
        plain.pop(key)
    plain["record"].pop("hash_key")
    plain["record"].pop("niceness")
    plain["record"]["redact"].pop("key")
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


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the annotations of a dataclass as types; making them takes longer than all the rest."""
    return typing.get_type_hints(kind)


def _build(kind: Any, value: Any) -> Any:
    """Return `value`, as JSON gave it, as the annotated type `kind`."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
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
