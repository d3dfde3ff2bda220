"""How two distributions differ, from what was counted of each: a description, not a test.

Numbers are binned at quantiles of both together, so that each bin holds a like share of them; labels
are bins themselves. PSI is the population stability index (sum of (q - p) ln(q / p)), JS the
Jensen-Shannon divergence in bits, in [0, 1] (J. Lin, 1991); an empty bin counts as half a pair in
PSI, which would be infinite. Wasserstein's distance is in the numbers' own unit, KS the greatest
difference of the cumulative shares; both from the sketch's buckets, so within 2% of a value. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.analysis.findings import BlandAltman, ConfusionMatrix, Drift
from proxy.analysis.predictions import NumberTally
from proxy.comparison.sketch import Floats, QuantileSketch

#: Bins of a distribution of numbers, labels that are told apart, and what the others are called.
BINS: Final = 20
MAX_LABELS: Final = 20
OTHER_LABEL: Final = "other"
#: 95% of differences lie within so many standard deviations, if they are normal.
_LIMIT: Final = 1.959963984540054
#: Shares at which quantiles of both sides are given, for a plot of one against the other.
QUANTILES: Final = (
    0.01, 0.05, *(n / 20 for n in range(2, 19)), 0.95, 0.98, 0.99, 0.995, 0.998, 0.999,
)  # fmt: skip

Counts = NDArray[np.int64]


def number_drift(numbers: NumberTally) -> Drift | None:
    """Return how the distributions of two columns of numbers differ; None without any."""
    if not numbers.pairs:
        return None
    both = QuantileSketch()
    both.merge(numbers.primary)
    both.merge(numbers.candidate)
    edges = [both.quantile(n / BINS) or 0.0 for n in range(1, BINS)]
    ends = _inner_ends(both, edges)
    counts = [_between(sketch, ends) for sketch in (numbers.primary, numbers.candidate)]
    limits = [both.minimum, *ends, both.maximum]
    bins = [
        {"from": low, "to": high, "primary": int(p), "candidate": int(c)}
        for low, high, p, c in zip(limits, limits[1:], *counts, strict=False)
    ]
    return Drift(
        kind="number",
        bins=tuple(bins),
        psi=psi(*counts),
        js=jensen_shannon(*counts),
        wasserstein=wasserstein(numbers.primary, numbers.candidate),
        ks=_greatest_gap(numbers.primary, numbers.candidate),
    )


def label_drift(pairs: Mapping[tuple[str, str], int]) -> Drift | None:
    """Return how often each label is predicted by either side; None without any."""
    if not pairs:
        return None
    labels = _frequent(pairs)
    counts = _matrix(pairs, labels)
    primary, candidate = counts.sum(axis=1), counts.sum(axis=0)
    bins = [
        {"label": label, "primary": int(p), "candidate": int(c)}
        for label, p, c in zip(labels, primary, candidate, strict=True)
    ]
    return Drift(
        kind="label",
        bins=tuple(bins),
        psi=psi(primary, candidate),
        js=jensen_shannon(primary, candidate),
        wasserstein=None,
        ks=None,
    )


def confusion_matrix(pairs: Mapping[tuple[str, str], int]) -> ConfusionMatrix | None:
    """Return the primary's labels (rows) against the candidate's (columns), with Cohen's kappa.

    Kappa (J. Cohen, 1960) is agreement beyond what two independent deciders with these frequencies
    would reach by chance; None where chance alone agrees always. Rare labels are one, so agreement
    among them counts as none there.
    """
    if not pairs:
        return None
    labels = _frequent(pairs)
    counts = _matrix(pairs, labels)
    return ConfusionMatrix(tuple(labels), tuple(map(tuple, counts.tolist())), _kappa(pairs))


def bland_altman(numbers: NumberTally) -> BlandAltman | None:
    """Return mean difference and limits of agreement (Bland and Altman, 1986); None without any."""
    if not numbers.pairs:
        return None
    half = _LIMIT * (numbers.deviation or 0.0)
    return BlandAltman(
        mean_diff=numbers.mean_diff,
        low=numbers.mean_diff - half,
        high=numbers.mean_diff + half,
        n=numbers.pairs,
        points=tuple(numbers.points()),
    )


def psi(primary: Counts, candidate: Counts) -> float:
    """Return the population stability index of two columns of counts, each with at least one."""
    first, second = (np.where(c > 0, c, 0.5) / max(c.sum(), 1) for c in (primary, candidate))
    is_used = (primary > 0) | (candidate > 0)
    terms = ((second - first) * np.log(second / first))[is_used]
    return float(terms.sum())


def jensen_shannon(primary: Counts, candidate: Counts) -> float:
    """Return the Jensen-Shannon divergence of two columns of counts, in bits."""
    first, second = primary / max(primary.sum(), 1), candidate / max(candidate.sum(), 1)
    middle = (first + second) / 2
    total = 0.0
    for share in (first, second):
        is_used = share > 0
        total += float((share[is_used] * np.log2(share[is_used] / middle[is_used])).sum()) / 2
    return min(max(total, 0.0), 1.0)


def wasserstein(first: QuantileSketch, second: QuantileSketch) -> float | None:
    """Return the first Wasserstein distance; None where a side is empty."""
    gaps = _gaps(first, second)
    if gaps is None:
        return None
    places, differences = gaps
    return float((np.abs(differences[:-1]) * np.diff(places)).sum())


def latency_quantiles(
    primary: QuantileSketch, candidate: QuantileSketch
) -> tuple[tuple[float, float, float], ...]:
    """Return share, and both sides' quantiles at it; empty where a side is."""
    rows = ((q, primary.quantile(q), candidate.quantile(q)) for q in QUANTILES)
    return tuple(
        (q, mine, theirs) for q, mine, theirs in rows if mine is not None and theirs is not None
    )


def _greatest_gap(first: QuantileSketch, second: QuantileSketch) -> float | None:
    gaps = _gaps(first, second)
    return None if gaps is None else float(np.abs(gaps[1]).max())


def _gaps(first: QuantileSketch, second: QuantileSketch) -> tuple[Floats, Floats] | None:
    """Return all buckets' places, and how far apart the cumulative shares are from each on."""
    if not first.count or not second.count:
        return None
    sides = [_places(sketch) for sketch in (first, second)]
    places = np.unique(np.concatenate([place for place, _ in sides]))
    shares = []
    for place, up_to in sides:
        index = np.searchsorted(place, places, side="right")
        shares.append(np.concatenate([[0.0], up_to / up_to[-1]])[index])
    return places, shares[1] - shares[0]


def _places(sketch: QuantileSketch) -> tuple[Floats, Counts]:
    """Return the middle of each bucket in use, within the extremes, and what is up to there."""
    lower, upper, up_to = sketch.occupied()
    middle = np.clip(lower, sketch.minimum, None) / 2 + np.clip(upper, None, sketch.maximum) / 2
    return np.maximum.accumulate(np.clip(middle, sketch.minimum, sketch.maximum)), up_to


def _inner_ends(sketch: QuantileSketch, edges: Sequence[float]) -> list[float]:
    """Return the ends of the buckets that hold `edges`, rising, without those at the extremes."""
    _, upper, _ = sketch.occupied()
    places = np.searchsorted(upper, edges, side="left")
    ends = sorted({float(upper[min(place, upper.size - 1)]) for place in places})
    return [end for end in ends if sketch.minimum < end < sketch.maximum]


def _between(sketch: QuantileSketch, ends: Sequence[float]) -> Counts:
    """Return how many values lie between two neighbouring `ends`, which are ends of buckets."""
    _, upper, up_to = sketch.occupied()
    index = np.searchsorted(upper, ends, side="right")
    below = np.concatenate([[0], up_to])[index]
    return np.diff(np.concatenate([[0], below, [sketch.count]])).astype(np.int64)


def _frequent(pairs: Mapping[tuple[str, str], int]) -> list[str]:
    """Return the most frequent labels in their own order, and `OTHER_LABEL` where there are more."""
    totals: dict[str, int] = {}
    for labels, count in pairs.items():
        for label in labels:
            totals[label] = totals.get(label, 0) + count
    ranked = sorted(totals, key=lambda label: (-totals[label], label))
    kept = sorted(ranked[:MAX_LABELS], key=_natural)
    return [*kept, OTHER_LABEL] if len(ranked) > MAX_LABELS else kept


def _natural(label: str) -> tuple[int, float, str]:
    """Return what orders numbers by size, before all others."""
    try:
        value = float(label)
    except ValueError:
        return 1, 0.0, label
    return (0, value, label) if math.isfinite(value) else (1, 0.0, label)


def _matrix(pairs: Mapping[tuple[str, str], int], labels: Sequence[str]) -> Counts:
    places = {label: place for place, label in enumerate(labels)}
    other = len(labels) - 1
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for (primary, candidate), count in pairs.items():
        counts[places.get(primary, other), places.get(candidate, other)] += count
    return counts


def _kappa(pairs: Mapping[tuple[str, str], int]) -> float | None:
    total = sum(pairs.values())
    first: dict[str, int] = {}
    second: dict[str, int] = {}
    for (primary, candidate), count in pairs.items():
        first[primary] = first.get(primary, 0) + count
        second[candidate] = second.get(candidate, 0) + count
    observed = sum(count for (p, c), count in pairs.items() if p == c) / total
    chance = sum(count * second.get(label, 0) for label, count in first.items()) / total**2
    return None if chance >= 1.0 else (observed - chance) / (1.0 - chance)
