"""What operators write: the YAML, key by key, with defaults and ranges.

A model here decides about one mapping by itself. What needs two places of the file (a backend that
a route names, ports that collide) is `proxy.config.cross_checks`; `proxy.config.resolve` makes the
`Config` that processes read.

The text below each key is its description in the JSON Schema. `config/reference.yaml` shows every
key with its default; tests hold the three together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proxy.config.resolved import FULL_BP, Address, Bodies, HashPolicy, Protocol, Split, SplitKind
from proxy.config.values import (
    BasisPoints,
    Bootstrap,
    Bytes,
    CandidateName,
    Endpoint,
    Folder,
    HeaderName,
    HeaderValue,
    Host,
    InstanceName,
    JmesPath,
    JsonPath,
    KafkaOption,
    Listener,
    Method,
    Name,
    Network,
    Number,
    OptionText,
    Seconds,
    SplitKey,
    Token,
    TopicPrefix,
    UrlPath,
    Whole,
)

KIB, MIB, GIB = 2**10, 2**20, 2**30
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0

#: Never recorded unless the operator says otherwise: they carry credentials.
SECRET_HEADERS = ("authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key")


class Strict(BaseModel):
    """A frozen mapping that refuses unknown keys; a key without a value counts as left out."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        """Leave out keys without a value, as when all lines below `limits:` are commented out."""
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


class AdminFile(Strict):
    """The admin listener: API, dashboard and metrics."""

    listen: Listener = Address("127.0.0.1", 9090)
    """Address of the admin API. One that is not loopback needs a token."""
    token: Token = ""
    """Bearer token that the admin API asks for; empty: none (loopback only)."""


class BackendFile(Strict):
    """A named upstream."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1, max_length=256)]
    """Where it is reached, `http://host:port`; several are tried in turn."""
    connect_timeout: Annotated[Seconds, Field(gt=0, le=MINUTE_S)] = 1.0
    """Time for a connection to be established."""
    timeout: Annotated[Seconds, Field(gt=0, le=DAY_S)] = 30.0
    """Time for a whole call, from dispatch to the last byte."""
    max_in_flight: Annotated[Whole, Field(ge=1, le=100_000)] = 1024
    """Calls at once; above it a call is shed."""
    keepalive: Annotated[Seconds, Field(ge=0, le=HOUR_S)] = 4.0
    """How long an idle connection is kept. Stay below what the backend itself allows (5s is common)."""


class MatchFile(Strict):
    """Which requests a route takes; everything given must hold."""

    host: Host = ""
    """Host name of the request, without port; empty: any."""
    path: UrlPath = ""
    """The whole path, without query."""
    path_prefix: UrlPath = ""
    """The first segments of the path: `/v2` takes `/v2` and `/v2/x`, not `/v20`."""
    methods: Annotated[tuple[Method, ...], Field(max_length=32)] = ()
    """Methods in capitals; empty: any."""
    headers: dict[HeaderName, HeaderValue] = {}
    """Header fields and the exact values they must have."""


class CandidateFile(Strict):
    """A backend under trial."""

    name: CandidateName
    """What the candidate is called in records, metrics and commands."""
    backend: Name
    """The backend that answers for it."""
    mirror: BasisPoints = FULL_BP
    """Share of requests that are copied to it; no user sees the answer."""
    weight: BasisPoints = 0
    """Share of live traffic that it serves."""


class CompareFile(Strict):
    """How two answers are compared."""

    prediction: JmesPath = ""
    """JMESPath of the prediction in an answer; empty: where the protocol has it."""
    comparator: Literal["exact", "numeric", "label"] = "exact"
    """exact: equal JSON. numeric: within tolerances. label: the same class."""
    rel_tol: Annotated[Number, Field(ge=0, le=1)] = 1e-6
    """Relative tolerance of `numeric`."""
    abs_tol: Annotated[Number, Field(ge=0)] = 1e-9
    """Absolute tolerance of `numeric`."""


class StepFile(Strict):
    """One step of a ramp."""

    weight: Annotated[BasisPoints, Field(gt=0)]
    """Share of live traffic that the candidate serves during this step."""
    min_pairs: Annotated[Whole, Field(ge=0, le=10**12)] = 100
    """Pairs that the gates must have seen before the next step."""
    min_duration: Annotated[Seconds, Field(ge=0, le=366 * DAY_S)] = MINUTE_S
    """Shortest time in this step."""
    max_duration: Annotated[Seconds, Field(ge=0, le=366 * DAY_S)] = 0.0
    """Longest time in this step, then it is rolled back; 0: no limit."""
    approval: Literal["auto", "manual"] = "auto"
    """manual: an operator must promote, whatever the gates say."""


class GateFile(Strict):
    """A statistical gate on the difference between candidate and primary."""

    metric: Literal["agreement", "availability", "latency", "correctness"]
    """What is judged."""
    margin: Annotated[Number, Field(gt=0, lt=1)] = 0.01
    """How much worse the candidate may be, as a share of requests."""
    budget: Annotated[Seconds, Field(gt=0, le=DAY_S)] | None = None
    """Latency only: a call that takes longer is too slow."""


class RampFile(Strict):
    """The plan that moves the canary weight through gates."""

    steps: Annotated[tuple[StepFile, ...], Field(min_length=1, max_length=100)]
    """Weights in rising order."""
    gates: Annotated[tuple[GateFile, ...], Field(min_length=1, max_length=4)]
    """What must hold before the next step, and roll back when it surely does not."""


class RouteFile(Strict):
    """A match, a primary and its candidates."""

    name: Name
    """What the route is called in records, metrics and commands."""
    match: MatchFile = MatchFile()
    """Which requests it takes; empty: all. The first route that matches wins."""
    protocol: Protocol = Protocol.JSON
    """How predictions are found in answers."""
    primary: Name
    """The backend that serves users today."""
    split_by: SplitKey = Split(SplitKind.REQUEST_ID, "")
    """What sticks to one side: header:NAME, cookie:NAME, json:PATH, client_ip, request_id."""
    candidates: Annotated[tuple[CandidateFile, ...], Field(max_length=16)] = ()
    """Backends under trial."""
    replicate: BasisPoints = 0
    """Share of requests sent to the primary twice, to learn how far it agrees with itself."""
    compare: CompareFile = CompareFile()
    """How answers are compared."""
    ramp: RampFile | None = None
    """The plan that moves the weight; left out: only operators move it."""
    experiment_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Name of the experiment in records; left out: the route's name."""


class KafkaFile(Strict):
    """Kafka as the sink of pairs."""

    bootstrap_servers: Annotated[tuple[Bootstrap, ...], Field(min_length=1, max_length=64)]
    """Brokers to start from, host:port."""
    topic_prefix: TopicPrefix = "shadow"
    """Pairs go to the topic PREFIX.pairs.v1."""
    options: dict[KafkaOption, OptionText] = {}
    """Further client settings by Kafka's own names, such as security.protocol."""


class RedactFile(Strict):
    """What never reaches a disk."""

    headers: tuple[HeaderName, ...] = SECRET_HEADERS
    """Header names; a list given here replaces the default."""
    json_paths: Annotated[tuple[JsonPath, ...], Field(alias="json", max_length=256)] = ()
    """Paths in JSON bodies, such as inputs[*].parameters.ssn."""


class RecordFile(Strict):
    """What is recorded of a pair, and where it goes."""

    kafka: KafkaFile | None = None
    """Ship pairs to Kafka; left out: to files under state_dir/pairs."""
    bodies: Bodies = Bodies.RESPONSES
    """responses: both answers. predictions: only what was compared. full: the request too. none."""
    hash: HashPolicy = HashPolicy.AUTO
    """auto: hash bodies that are recorded whole. always: every body, at the worker's cost."""
    redact: RedactFile = RedactFile()
    """What never reaches a disk."""


class LimitsFile(Strict):
    """Every bound that may be set."""

    request_head: Annotated[Bytes, Field(ge=KIB, le=MIB)] = 32 * KIB
    """Request line and headers together; more is answered 431."""
    request_body: Annotated[Bytes, Field(ge=0, le=64 * GIB)] = 64 * MIB
    """Request body; more is answered 413."""
    mirror_body: Annotated[Bytes, Field(ge=0, le=GIB)] = 8 * MIB
    """A request with a longer body is served and not mirrored."""
    record_body: Annotated[Bytes, Field(ge=0, le=GIB)] = 256 * KIB
    """Bodies are cut here in records."""
    memory: Annotated[Bytes, Field(ge=MIB, le=1024 * GIB)] = 256 * MIB
    """Bodies that one worker keeps at a time for mirrors and records."""
    journal_disk: Annotated[Bytes, Field(ge=MIB)] = 10 * GIB
    """Journals of all workers together; when full, the oldest pairs are dropped and counted."""
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
    limits: LimitsFile = LimitsFile()
    """Every bound that may be set."""
