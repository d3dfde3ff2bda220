"""The part of the configuration about routes; import it from `proxy.config.resolved`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proxy.config.resolved_record import Bodies, RedactRule

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
class CanaryGuard:
    """When a worker takes a candidate out of live traffic by itself.

    Attributes:
        failures: live calls, failed or too slow, that do it; 0: none do.
        within_s: how long they may take, where good calls lie between them.
        share_bp: of the calls from the first of them to the last, what they must be.
        latency_s: of the first byte, above which a call is too slow; 0: none is; None: as the primary's
            are.
    """

    failures: int = 5
    within_s: float = 1.0
    share_bp: int = 5_000
    latency_s: float | None = None


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
    guard: CanaryGuard = CanaryGuard()


@dataclass(frozen=True, slots=True)
class Compare:
    """How two answers are compared; what a comparator has no use for has its default.

    Attributes:
        prediction: a JMESPath or, beginning with `$`, a JSONPath expression; or empty.
        comparator: a name, or `module:function`.
        ulp: steps of float32; 0: none.
        ignore, unordered: places inside the prediction.
        measure: of rankings.
        min_similarity: of vectors, texts and rankings, at most 1.
    """

    prediction: str
    comparator: str
    rel_tol: float
    abs_tol: float
    ulp: int = 0
    ignore: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()
    inside_text: bool = False
    k: int = 5
    measure: str = "overlap"
    min_similarity: float = 1.0
    ignore_case: bool = False


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
class Webhook:
    """Somebody who is told of a ramp; `url` and `secret` are secrets, an empty one signs nothing."""

    url: str
    secret: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Ramp:
    """The plan that moves the canary weight through gates.

    Attributes:
        confirm: asked before each step up.
        notify: told of everything.
    """

    steps: tuple[Step, ...]
    gates: tuple[Gate, ...]
    confirm: Webhook | None = None
    notify: Webhook | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A label of requests, and the header or the place in the JSON body that it is read from."""

    name: str
    source: Split


@dataclass(frozen=True, slots=True)
class Route:
    """A match, a primary and its candidates; `upgrades` are protocol names in lower case.

    Attributes:
        bodies: kept of its pairs; None: what `Record` says. Ask `Record.bodies_of`.
        redact: rules of its own, beside those for all routes. Ask `Record.rules_of`.
    """

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
    bodies: Bodies | None = None
    redact: tuple[RedactRule, ...] = ()
    segments: tuple[Segment, ...] = ()
