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
    EndpointUrl,
    FilePath,
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
    ModelName,
    Name,
    Network,
    Number,
    OptionText,
    OtlpEndpoint,
    OwnHeader,
    Seconds,
    SplitKey,
    TlsVersion,
    Token,
    TopicPrefix,
    UpgradeName,
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


class GuardFile(Strict):
    """Which requests may be sent twice; everything given must hold."""

    methods: Annotated[tuple[Method, ...], Field(max_length=32)] = ("GET", "HEAD", "POST")
    """Methods in capitals; empty: any."""
    headers: dict[HeaderName, HeaderValue] = {}
    """Header fields and the exact values they must have."""
    path_prefixes: Annotated[tuple[UrlPath, ...], Field(max_length=64)] = ()
    """First segments of paths, one of which must hold; empty: any path."""


class BreakerFile(Strict):
    """When copies to a candidate that does not answer are given up, and tried again."""

    failures: Annotated[Whole, Field(ge=0, le=10_000)] = 5
    """Copies in a row without an answer that open it; 0: it never opens."""
    open_for: Annotated[Seconds, Field(gt=0, le=HOUR_S)] = 5.0
    """How long no copy is sent; doubled each time that it still does not answer."""
    max_open_for: Annotated[Seconds, Field(gt=0, le=DAY_S)] = MINUTE_S
    """Where the doubling ends."""
    probes: Annotated[Whole, Field(ge=1, le=100)] = 1
    """Copies sent after that time; when all are answered, the others follow."""


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
    timeout: Annotated[Seconds, Field(gt=0, le=DAY_S)] | None = None
    """Time for a whole copy, from dispatch to the last byte; left out: the backend's."""
    mirror_rate: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0
    """Copies per second at most, over all workers; 0: no bound."""
    breaker: BreakerFile = BreakerFile()
    """When copies to it are given up, and tried again; live traffic is not concerned."""
    set_headers: Annotated[dict[OwnHeader, HeaderValue], Field(max_length=64)] = {}
    """Header fields of its requests, in place of the client's; values are kept secret."""
    remove_headers: Annotated[tuple[OwnHeader, ...], Field(max_length=64)] = ()
    """Header fields of the client that it does not get."""
    model: Annotated[ModelName, Field(max_length=200)] = ""
    """The model's name as the candidate knows it, put into path or JSON body; empty: unchanged."""


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
    upgrades: Annotated[tuple[UpgradeName, ...], Field(max_length=16)] = ("websocket",)
    """Protocols that Upgrade may change to: tunnelled to the primary, not mirrored; empty: none."""
    mirror_only: GuardFile = GuardFile()
    """Which requests may be sent twice: mirrored, replicated, or asked again after a canary failed."""
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
    record_body: Annotated[Bytes, Field(ge=0, le=GIB)] = 256 * KIB
    """Bodies are cut here in records."""
    memory: Annotated[Bytes, Field(ge=MIB, le=1024 * GIB)] = 256 * MIB
    """Bodies that one worker keeps at a time for mirrors and records."""
    journal_disk: Annotated[Bytes, Field(ge=MIB)] = 10 * GIB
    """Journals of all workers together; when full, the oldest pairs are dropped and counted."""
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
    log: LogFile = LogFile()
    """The access log."""
    telemetry: TelemetryFile = TelemetryFile()
    """What is told to other systems."""
    limits: LimitsFile = LimitsFile()
    """Every bound that may be set."""
