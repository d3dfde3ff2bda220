"""What a comparison finds about each candidate: frozen values, as `understudy compare --json` has them.

They are the `candidates` of the document, field for field, and what a report is made from. Shares lie
in [0, 1], times are milliseconds, absent values are null; labels are JSON texts, so that `"3"` and `3`
stay apart. How they are counted is `proxy.analysis.tally`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy.analysis.judged import VersionPairs
from proxy.analysis.proportions import Correctness, Proportion


@dataclass(frozen=True, slots=True)
class ThreeCounts:
    """Pairs by the sign of their loss difference; `missing`: offered, but without one."""

    better: int
    same: int
    worse: int
    missing: int


@dataclass(frozen=True, slots=True)
class GateFinding:
    """What one gate says.

    Attributes:
        verdict, reason: promote, halt, continue or no_data, and why.
        budget_ms: latency only.
        has_noise_floor: agreement only: the primary's disagreement with itself is taken away.
        n: pairs with a loss difference; `counts` are these by its sign.
        mean: of the loss differences, weighted; positive = candidate worse.
        low, high: bounds of the mean, each right at all looks together but for `alpha`.
        e_promote, e_halt: evidence that it is below, and above, the margin; acts at `1 / alpha`.
    """

    metric: str
    verdict: str
    reason: str
    margin: float
    alpha: float
    budget_ms: float | None
    has_noise_floor: bool
    n: int
    counts: ThreeCounts
    mean: float | None
    low: float
    high: float
    e_promote: float
    e_halt: float


@dataclass(frozen=True, slots=True)
class SplitFinding:
    """How split keys were shared out at one weight.

    Attributes:
        name: of the arm, such as `canary v2 at 10%`.
        declared, seen: share of the keys that the candidate should have got, and has got.
        keys: that were counted, each once.
        e: evidence that the split is not as declared.
    """

    name: str
    declared: float
    seen: float
    keys: int
    e: float


@dataclass(frozen=True, slots=True)
class VerdictFinding:
    """What all gates say together; `gates_from`: config, options or defaults.

    Attributes:
        split: the sample ratio, by weight; evidence against it blocks the verdict.
        e_split: of all of them, acts at `1 / split_alpha`.
    """

    verdict: str
    reason: str
    gates_from: str
    gates: tuple[GateFinding, ...]
    split: tuple[SplitFinding, ...] = ()
    e_split: float = 1.0
    split_alpha: float = 0.001


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the candidate agrees with the primary.

    Attributes:
        equal, comparable: the share is `equal / comparable`.
        rate, low, high: with its Wilson interval at 95%, for one look.
        noise_floor: how often the primary disagrees with itself, from its replicates.
    """

    equal: int
    comparable: int
    rate: float | None
    low: float | None
    high: float | None
    not_comparable: dict[str, int]
    noise_floor: Proportion


@dataclass(frozen=True, slots=True)
class SideQuantiles:
    """Quantiles of one side, each within 1% of its size.

    Attributes:
        bounds: of each quantile by its name, right at all looks together but for 5% at either end;
            null where there are too few values for a claim.
    """

    p50: float | None
    p90: float | None
    p99: float | None
    count: int
    bounds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TwoSides:
    """The same of both sides."""

    primary: SideQuantiles
    candidate: SideQuantiles


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of the calls that ended ok, and quantiles of both for a plot: share, both sides."""

    primary: SideQuantiles
    candidate: SideQuantiles
    quantiles: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """Streamed answers: time to the first content, median and longest gap between pieces."""

    ttft_ms: TwoSides
    itl_p50_ms: TwoSides
    itl_max_ms: TwoSides


@dataclass(frozen=True, slots=True)
class Drift:
    """How the distributions of both sides' predictions differ; see `proxy.analysis.distributions`.

    Attributes:
        kind: number or label.
        bins: pairs by side, as `primary` and `candidate`: of numbers over `from` and at most `to`
            (the first holds `from`, too), or of a `label`.
        wasserstein, ks: of numbers only.
    """

    kind: str
    bins: tuple[dict[str, Any], ...]
    psi: float
    js: float
    wasserstein: float | None
    ks: float | None


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """Candidate minus primary: mean, limits of agreement at 95%, and up to 512 pairs to plot.

    Attributes:
        points: mean of both sides, and their difference.
    """

    mean_diff: float
    low: float
    high: float
    n: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Pairs by the primary's label (rows) and the candidate's (columns)."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    kappa: float | None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Labelled predictions whose score lies in a tenth: how many, mean score, share that is right."""

    low: float
    high: float
    n: int
    mean_score: float | None
    right: float | None


@dataclass(frozen=True, slots=True)
class SideCalibration:
    """One side: bins, Brier score, and expected calibration error over the bins."""

    n: int
    brier: float | None
    ece: float | None
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether scores mean what they say; see `proxy.analysis.calibration`."""

    primary: SideCalibration
    candidate: SideCalibration


@dataclass(frozen=True, slots=True)
class SegmentFinding:
    """One value of a segment, in the gate that judges answers; in another gate, if it is flagged.

    Attributes:
        e: evidence that the candidate is worse there than the margin allows.
        flagged: e-BH finds it, of all segments looked at.
    """

    metric: str
    key: str
    value: str
    n: int
    mean: float | None
    low: float
    high: float
    e: float
    flagged: bool


@dataclass(frozen=True, slots=True)
class WorstPair:
    """A pair that differs much; predictions are JSON, answers text, both shortened."""

    pair_id: str
    request_id: str
    ts: str
    primary: str
    candidate: str
    primary_answer: str | None
    candidate_answer: str | None
    first_diff_path: str | None
    abs_diff: float | None


@dataclass(frozen=True, slots=True)
class CandidateFindings:
    """Everything found about one candidate of one route.

    Attributes:
        sentence: the verdict with its numbers.
        versions: configs and model versions, the newest first; the verdict is about the newest
            alone, all else here is about all pairs.
        statuses: pairs by how either leg ended.
        errors: the most frequent error texts of either leg.
        correctness: who is right; null where no labels were read.
    """

    route: str
    candidate: str
    sentence: str
    verdict: VerdictFinding
    pairs: int
    versions: tuple[VersionPairs, ...]
    agreement: Agreement
    statuses: dict[str, dict[str, int]]
    errors: dict[str, dict[str, int]]
    latency_ms: Latency
    stream: Stream | None
    drift: Drift | None
    bland_altman: BlandAltman | None
    confusion: ConfusionMatrix | None
    correctness: Correctness | None
    calibration: Calibration | None
    segments: tuple[SegmentFinding, ...]
    worst: tuple[WorstPair, ...]
