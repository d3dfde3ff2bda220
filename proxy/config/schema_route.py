"""Routes in the config file; see `proxy.config.schema`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy.config.resolved import FULL_BP, Bodies, Protocol, Split, SplitKind
from proxy.config.schema_base import DAY_S, HOUR_S, MINUTE_S, Strict
from proxy.config.schema_ramp import RampFile
from proxy.config.schema_redact import RouteRedactFile
from proxy.config.segments import SegmentSource
from proxy.config.values import (
    BasisPoints,
    CandidateName,
    ComparatorName,
    HeaderName,
    HeaderValue,
    Host,
    Method,
    ModelName,
    Name,
    Number,
    OwnHeader,
    PredictionPath,
    PredictionPlace,
    Seconds,
    SplitKey,
    UpgradeName,
    UrlPath,
    Whole,
)


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


class CanaryGuardFile(Strict):
    """When a worker takes a candidate out of live traffic by itself, until `understudy revive`."""

    failures: Annotated[Whole, Field(ge=0, le=1_000)] = 5
    """Live calls, failed or too slow, that do it: in a row, or within the time below; 0: none do."""
    within: Annotated[Seconds, Field(gt=0, le=HOUR_S)] = 1.0
    """How long they may take where good calls lie between them."""
    share: Annotated[BasisPoints, Field(gt=0)] = 5_000
    """What share of the calls from the first of them to the last they must be then."""
    latency: Annotated[Seconds, Field(ge=0, le=DAY_S)] | None = None
    """Time to an answer's first byte, above which a call is too slow; 0: none is; left out: see README."""


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
    guard: CanaryGuardFile = CanaryGuardFile()
    """When it is taken out of live traffic at once, whatever a ramp's gates say."""
    set_headers: Annotated[dict[OwnHeader, HeaderValue], Field(max_length=64)] = {}
    """Header fields of its requests, in place of the client's; values are kept secret."""
    remove_headers: Annotated[tuple[OwnHeader, ...], Field(max_length=64)] = ()
    """Header fields of the client that it does not get."""
    model: Annotated[ModelName, Field(max_length=200)] = ""
    """The model's name as the candidate knows it, put into path or JSON body; empty: unchanged."""


class CompareFile(Strict):
    """How two answers are compared."""

    prediction: PredictionPath = ""
    """JMESPath, or JSONPath from $ on, of the prediction in an answer; empty: where the protocol has it."""
    comparator: ComparatorName = "exact"
    """exact, json, numeric, label, top_k, ranking, vector, text, or a function of yours: module:function."""
    rel_tol: Annotated[Number, Field(ge=0, le=1)] = 1e-6
    """Relative tolerance of `numeric`; with `ulp`, 0 unless given."""
    abs_tol: Annotated[Number, Field(ge=0)] = 1e-9
    """Absolute tolerance of `numeric`; with `ulp`, 0 unless given."""
    ulp: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """numeric: numbers so many steps of float32 apart agree, too."""
    ignore: Annotated[tuple[PredictionPlace, ...], Field(max_length=64)] = ()
    """json: places in the prediction that do not count, such as `[*].id`."""
    unordered: Annotated[tuple[PredictionPlace, ...], Field(max_length=64)] = ()
    """json: arrays whose order does not count; $ is the prediction itself."""
    inside_text: bool = False
    """json: strings that hold JSON (tool calls' arguments) count as what they hold."""
    k: Annotated[Whole, Field(ge=1, le=100)] = 5
    """top_k, ranking: how many of the best count."""
    measure: Literal["overlap", "kendall", "ndcg"] = "overlap"
    """ranking: how alike two rankings are."""
    min_similarity: Annotated[Number, Field(ge=-1, le=1)] = 1.0
    """ranking, vector, text: how alike answers must be to agree; 1: the same."""
    ignore_case: bool = False
    """text: capital and small letters are the same."""


class RouteRecordFile(Strict):
    """What is recorded of one route's pairs, where it differs from `record`."""

    bodies: Bodies | None = None
    """As record.bodies, for this route; left out: what is said there."""
    redact: RouteRedactFile = RouteRedactFile()
    """What never reaches a disk of this route, beside what is said there."""


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
    segments: Annotated[dict[Name, SegmentSource], Field(max_length=8)] = {}
    """Labels that tell groups of requests apart, by name: header:NAME or json:PATH; in records."""
    experiment_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Name of the experiment in records; left out: the route's name."""
    record: RouteRecordFile = RouteRecordFile()
    """What is recorded of its pairs, where it differs from `record`."""
