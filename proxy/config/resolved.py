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
from dataclasses import dataclass, fields, is_dataclass
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
class Backend:
    """A named upstream.

    Attributes:
        endpoints: one or more addresses, tried in turn.
        connect_timeout_s: until TCP is established.
        timeout_s: whole leg, from dispatch to the last byte.
        max_in_flight: legs at once; above it the leg is shed.
        keepalive_s: how long an idle pooled connection is kept. Below the 5 s after which common
            Python servers close theirs, so that a request rarely meets a closing connection.
    """

    name: str
    endpoints: tuple[Address, ...]
    connect_timeout_s: float
    timeout_s: float
    max_in_flight: int
    keepalive_s: float


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
class Candidate:
    """A backend under trial, with its configured mirror percent and canary weight."""

    name: str
    backend: str
    mirror_bp: int
    weight_bp: int


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
    """A match, a primary and its candidates."""

    name: str
    match: Match
    protocol: Protocol
    primary: str
    split: Split
    candidates: tuple[Candidate, ...]
    replicate_bp: int
    compare: Compare
    ramp: Ramp | None
    experiment_id: str


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
class Config:
    """One whole configuration. `version` is its hash, the `config_version` of every record.

    Attributes:
        trusted_proxies: networks, as `10.0.0.0/8`, whose word on the client's address is taken.
    """

    version: str
    instance: str
    listen: Address
    trusted_proxies: tuple[str, ...]
    workers: int
    recorders: int
    state_dir: str
    admin: Admin
    backends: dict[str, Backend]
    routes: tuple[Route, ...]
    record: Record
    limits: Limits


def digest(config: Config) -> str:
    """Return the config version: 16 hex digits over all that bears on answers and pairs.

    Left out is what differs between replicas of one configuration (names, addresses, folders,
    numbers of processes) and what is secret (the token, the Kafka client's options): the version
    is in every record, and a hash of a password can be guessed at leisure.
    """
    plain = orjson.loads(orjson.dumps(config))
    for key in ("version", "instance", "listen", "admin", "state_dir", "workers", "recorders"):
        plain.pop(key)
    if plain["record"]["kafka"] is not None:
        plain["record"]["kafka"].pop("options")
    canonical = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=8).hexdigest()


def dumps(config: Config) -> bytes:
    """Return the config as JSON, whole, including the admin token (keep the file 0600)."""
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
