"""The evidence in recorded pairs, by what answered: counts that add up, and the verdict they give.

Decides whose a pair is. Evidence belongs to one config and one version of either model
(`proxy.comparison.evidence`); the versions that answered last decide, older ones are told apart. A
call that failed names no version: it is charged to the one that answered last before it, else a
candidate that only times out would have no failures of its own.

What a pair means to a gate is `proxy.comparison.gates`'s, what counts mean `proxy.comparison.verdict`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from proxy.comparison.counts import (
    FULL_WEIGHT,
    Counts,
    difference_cell,
    inverse_weight,
    weight_cell,
)
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateCounts, LastVersions
from proxy.comparison.gates import Metric, difference, is_offered
from proxy.comparison.sample_ratio import ArmCounts
from proxy.comparison.segments import MAX_SEGMENTS, OTHER
from proxy.comparison.split_keys import SplitKeys

#: Configs and versions kept apart for one candidate; the one longest without a pair goes first.
MAX_VERSIONS: Final = 64
#: Distinct values of all gates' differences, and segments, kept for one of them.
MAX_CELLS: Final = 20_000
MAX_SEGMENT_VALUES: Final = 1_000

#: Configs whose split is looked at; the one longest without a canary's pair goes first.
MAX_SPLITS: Final = 4

#: In place of a difference: the pair was offered and gave none; it was not offered at all.
MISSING: Final = None
NOT_OFFERED: Final = "not offered"

#: Segments of a pair: names and values, sorted.
Segments = tuple[tuple[str, str], ...]


class Version(NamedTuple):
    """What answered: evidence of two versions is never added up."""

    experiment_id: str
    config_version: str
    primary_version: str | None
    candidate_version: str | None


class Differences(NamedTuple):
    """The cell of each gate's difference of a pair, `MISSING` or `NOT_OFFERED`, and its probability.

    Attributes:
        agreement: against the primary alone.
        agreement_over_noise: with the replicate's loss taken away; only pairs that have one.
        sample_prob: of being recorded.
    """

    agreement: int | str | None
    agreement_over_noise: int | str | None
    availability: int | str | None
    latency: int | str | None
    sample_prob: float


def differences_of(record: Mapping[str, Any], budget_s: float | None) -> Differences:
    """Return what the gates make of `record`, of which they need a dozen fields.

    Args:
        record: a pair record, or those of its fields that `proxy.comparison.gates` reads.
        budget_s: of the latency gate; None: there is none.
    """
    return Differences(
        _cell(Metric.AGREEMENT, record),
        _cell(Metric.AGREEMENT, record, has_noise_floor=True),
        _cell(Metric.AVAILABILITY, record),
        NOT_OFFERED if budget_s is None else _cell(Metric.LATENCY, record, budget_s=budget_s),
        record["sample_prob"],
    )


def _cell(
    metric: Metric,
    record: Mapping[str, Any],
    *,
    has_noise_floor: bool = False,
    budget_s: float = 0.0,
) -> int | str | None:
    if not is_offered(metric, record, has_noise_floor=has_noise_floor):
        return NOT_OFFERED
    value = difference(metric, record, has_noise_floor=has_noise_floor, budget_s=budget_s)
    return difference_cell(value) if value is not None and -1.0 <= value <= 1.0 else MISSING


class _Cells:
    """Pairs by value, at most `MAX_CELLS` of them; what comes later is `lost`, and so missing."""

    __slots__ = ("counts", "lost")

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()
        self.lost = 0

    def add(self, value: Any, count: int) -> None:
        if value in self.counts or len(self.counts) < MAX_CELLS:
            self.counts[value] += count
        else:
            self.lost += count

    def merge(self, other: _Cells) -> None:
        for value, count in other.counts.items():
            self.add(value, count)
        self.lost += other.lost


class VersionTally:
    """The counts of one version.

    Attributes:
        pairs: how many were counted.
        first_ms, last_ms: time of the earliest and the latest of them.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.first_ms = 2**63
        self.last_ms = -(2**63)
        self._overall = _Cells()
        self._segments: dict[tuple[str, str], _Cells] = {}
        # Labels come for few pairs, so what they say is counted apart: cell and probability.
        self._correctness = _Cells()
        self._segment_correctness: dict[tuple[str, str], _Cells] = {}

    def add(self, differences: Differences, segments: Segments, count: int) -> None:
        """Count `count` pairs alike."""
        self.pairs += count
        self._overall.add(differences, count)
        for segment in segments:
            _of(self._segments, segment).add(differences, count)

    def add_label(
        self, value: float | None, sample_prob: float, segments: Segments, count: int
    ) -> None:
        """Count the difference of `count` labelled pairs alike."""
        is_usable = value is not None and -1.0 <= value <= 1.0
        cell = difference_cell(value) if value is not None and is_usable else MISSING
        self._correctness.add((cell, sample_prob), count)
        for segment in segments:
            _of(self._segment_correctness, segment).add((cell, sample_prob), count)

    def note_span(self, first_ms: int, last_ms: int) -> None:
        """Note that pairs between these times were counted."""
        self.first_ms, self.last_ms = min(self.first_ms, first_ms), max(self.last_ms, last_ms)

    def merge(self, other: VersionTally) -> None:
        """Count everything that `other` has counted."""
        self.pairs += other.pairs
        self.note_span(other.first_ms, other.last_ms)
        self._overall.merge(other._overall)
        self._correctness.merge(other._correctness)
        for mine, theirs in (
            (self._segments, other._segments),
            (self._segment_correctness, other._segment_correctness),
        ):
            for segment, cells in theirs.items():
                _of(mine, segment).merge(cells)

    @property
    def has_replicates(self) -> bool:
        """Return whether the primary was asked twice for any pair."""
        return any(d.agreement_over_noise != NOT_OFFERED for d in self._overall.counts)

    @property
    def has_labels(self) -> bool:
        """Return whether any pair has a label."""
        return bool(self._correctness.counts)

    @property
    def least_probability(self) -> float:
        """Return the smallest probability with which a pair was recorded; 1 without pairs."""
        return min((d.sample_prob for d in self._overall.counts), default=1.0)

    def gate_counts(self, metric: Metric, floor: float, *, has_noise_floor: bool) -> GateCounts:
        """Return the counts of one gate and of its segments."""
        if metric is Metric.CORRECTNESS:
            overall, segments, place = self._correctness, self._segment_correctness, 0
        else:
            overall, segments = self._overall, self._segments
            place = _PLACES[metric, has_noise_floor and metric is Metric.AGREEMENT]
        named = {
            OTHER if name == _OVERFLOW else f"{name[0]}={name[1]}": _counts(cells, place, floor)
            for name, cells in _largest(segments)
        }
        return GateCounts(metric, _counts(overall, place, floor), tuple(sorted(named.items())))


_OVERFLOW: Final = ("", OTHER)
_PLACES: Final = {
    (Metric.AGREEMENT, False): 0,
    (Metric.AGREEMENT, True): 1,
    (Metric.AVAILABILITY, False): 2,
    (Metric.LATENCY, False): 3,
}


def _of(segments: dict[tuple[str, str], _Cells], segment: tuple[str, str]) -> _Cells:
    """Return the cells of a segment; of one beyond the bound, those of all others."""
    found = segments.get(segment)
    if found is None:
        name = segment if len(segments) < MAX_SEGMENT_VALUES else _OVERFLOW
        found = segments.setdefault(name, _Cells())
    return found


def _largest(segments: dict[tuple[str, str], _Cells]) -> Iterable[tuple[tuple[str, str], _Cells]]:
    """Return the `MAX_SEGMENTS` segments with the most pairs, and the others as one."""
    by_size = sorted(segments.items(), key=lambda item: (-item[1].counts.total(), item[0]))
    kept = dict(each for each in by_size[:MAX_SEGMENTS] if each[0] != _OVERFLOW)
    rest = [cells for name, cells in by_size if name not in kept]
    if rest:
        kept[_OVERFLOW] = _Cells()
        for cells in rest:
            kept[_OVERFLOW].merge(cells)
    return kept.items()


def _counts(cells: _Cells, place: int, floor: float) -> Counts:
    """Return the counts of the differences at `place`, weighed by inverse probability."""
    found: Counter[tuple[int, int]] = Counter()
    missing = cells.lost
    for value, count in cells.counts.items():
        cell = value[place]
        if cell == NOT_OFFERED:
            continue
        weight = _weight_cell(value[-1], floor)
        if cell is MISSING or weight is None:
            missing += count
        else:
            found[weight, cell] += count
    return Counts(tuple((*cell, count) for cell, count in sorted(found.items())), missing)


def _weight_cell(sample_prob: float, floor: float) -> int | None:
    weight = inverse_weight(sample_prob, floor)
    if weight == 1.0:
        return FULL_WEIGHT
    return None if weight is None else weight_cell(weight)


@dataclass(frozen=True, slots=True)
class VersionPairs:
    """One version and how many pairs it has; `is_deciding`: the verdict is about it."""

    config_version: str
    primary_version: str | None
    candidate_version: str | None
    pairs: int
    first_ts_ms: int
    last_ts_ms: int
    is_deciding: bool


class JudgedTally:
    """The evidence of one candidate of a route, by version.

    Attributes:
        dropped: pairs of versions that were given up because there were too many.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._versions: dict[Version, VersionTally] = {}
        self._splits: dict[tuple[str, str], SplitKeys] = {}

    def split_of(self, key: tuple[str, str]) -> SplitKeys:
        """Return the split keys of an experiment and config, to add to."""
        found = self._splits.pop(key, None) or SplitKeys()
        while len(self._splits) >= MAX_SPLITS:
            del self._splits[next(iter(self._splits))]
        self._splits[key] = found
        return found

    def arms(self, version: Version, candidate: str) -> tuple[ArmCounts, ...]:
        """Return how the keys were split under the config of `version`, whatever model answered."""
        found = self._splits.get((version.experiment_id, version.config_version))
        return found.arms(candidate) if found else ()

    def of(self, version: Version) -> VersionTally:
        """Return the counts of a version, to add to."""
        found = self._versions.get(version)
        if found is None:
            found = self._versions[version] = VersionTally()
            if len(self._versions) > MAX_VERSIONS:
                others = [item for item in self._versions.items() if item[0] != version]
                oldest = min(others, key=lambda item: (item[1].last_ms, item[0][1:2]))[0]
                self.dropped += self._versions.pop(oldest).pairs
        return found

    def merge(self, later: JudgedTally, last: LastVersions) -> None:
        """Count everything in `later`, whose pairs come after these, which ended with `last`."""
        for version, tally in later._versions.items():
            self.of(_completed(version, last.primary, last.candidate)).merge(tally)
        for key, keys in later._splits.items():
            self.split_of(key).merge(keys)
        self.dropped += later.dropped

    def deciding(self) -> tuple[Version, VersionTally] | None:
        """Return what answered last, which a verdict is about; None without pairs."""
        versions = self._settled()
        if not versions:
            return None
        return max(versions.items(), key=lambda item: (item[1].last_ms, item[1].pairs))

    def counted_of(self, version: Version) -> VersionTally:
        """Return the counts of a version, none where it did not answer."""
        return self._settled().get(version) or VersionTally()

    def versions(self) -> tuple[VersionPairs, ...]:
        """Return all versions, the newest first."""
        deciding = self.deciding()
        if deciding is None:
            return ()
        ranked = sorted(self._settled().items(), key=lambda item: (-item[1].last_ms, str(item[0])))
        return tuple(
            VersionPairs(*version[1:], tally.pairs, tally.first_ms, tally.last_ms,
                         is_deciding=version == deciding[0])
            for version, tally in ranked
        )  # fmt: skip

    def _settled(self) -> dict[Version, VersionTally]:
        """Return the versions, failures before the first answer charged to its version."""
        settled: dict[Version, VersionTally] = {}
        known = [v for v in self._versions if v.primary_version or v.candidate_version]
        for version, tally in self._versions.items():
            whole = _completed(version, *_first_of(known, version))
            settled.setdefault(whole, VersionTally()).merge(tally)
        return settled


def _completed(version: Version, primary: str | None, candidate: str | None) -> Version:
    return version._replace(
        primary_version=version.primary_version or primary,
        candidate_version=version.candidate_version or candidate,
    )


def _first_of(known: list[Version], version: Version) -> tuple[str | None, str | None]:
    """Return the first named versions under the same config."""
    same = [each for each in known if each[:2] == version[:2]]
    primary = next((each.primary_version for each in same if each.primary_version), None)
    return primary, next((each.candidate_version for each in same if each.candidate_version), None)


def evidence_counts(
    name: tuple[str, str],
    version: Version,
    gates: tuple[GateCounts, ...],
    arms: tuple[ArmCounts, ...],
    offsets: Iterable[tuple[str, int]],
) -> EvidenceCounts:
    """Return the counts of a candidate, given as route and name, as a verdict takes them."""
    key = EvidenceKey(
        experiment_id=version.experiment_id,
        route=name[0],
        candidate=name[1],
        config_version=version.config_version,
        primary_version=version.primary_version,
        candidate_version=version.candidate_version,
    )
    return EvidenceCounts(
        key, tuple(sorted(gates, key=lambda g: g.metric)), arms, tuple(sorted(offsets))
    )
