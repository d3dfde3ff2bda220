"""The counts that a verdict rests on: whose they are, how they grow, and how shards add up.

Decides what belongs together. The key of the evidence holds the config's version and both model
versions, so a change of any starts afresh, with no rule that could be forgotten. A call that failed
names no version: it is charged to the one that answered last before it, else a candidate that only
times out would have no failures of its own, and each failure would be a change. Counts of workers,
replicas and Kafka partitions add up exactly, in any order. What they mean is `verdict`'s. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final

from proxy.comparison.counts import Counts, Tally, inverse_weight, merged
from proxy.comparison.gates import Metric, difference, is_offered
from proxy.comparison.sample_ratio import ArmCounts, merged_arms
from proxy.comparison.segments import MAX_SEGMENTS, segment_of
from proxy.config.resolved import FULL_BP, Route

#: Keys kept at a time: while endpoints are updated one by one, two model versions answer in turns.
MAX_KEYS: Final = 8


@dataclass(frozen=True, slots=True)
class GateParams:
    """How one gate judges.

    Attributes:
        metric: what it judges.
        margin: by how much E[D] the candidate may be worse, in (0, 1).
        budget_s: latency only.
        has_noise_floor: agreement only: the primary's disagreement with itself is taken away; without
            it the noise is taken as 0, and the verdict says so.
        alpha: probability of ever promoting wrongly, and of ever halting wrongly, each.
        max_missing: share of offered pairs without D above which there is no verdict.
    """

    metric: Metric
    margin: float
    budget_s: float = 0.0
    has_noise_floor: bool = False
    alpha: float = 0.05
    max_missing: float = 0.05


@dataclass(frozen=True, slots=True)
class Params:
    """How a candidate is judged.

    Attributes:
        gates: at least one; the worst of them decides.
        floor: smallest probability of a pair to be recorded; see `counts.inverse_weight`.
        segment_alpha: share of false findings among segments found worse; 0: they are not judged.
        split_alpha: probability of ever calling a true split broken. Small, because it blocks.
    """

    gates: tuple[GateParams, ...]
    floor: float = 1.0
    segment_alpha: float = 0.05
    split_alpha: float = 0.001


@dataclass(frozen=True, slots=True)
class EvidenceKey:
    """What counts are of; those of two keys are never added up."""

    experiment_id: str
    route: str
    candidate: str
    config_version: str
    primary_version: str | None
    candidate_version: str | None


@dataclass(frozen=True, slots=True)
class GateCounts:
    """Counts of one gate; `segments` are named counts, sorted by name."""

    metric: Metric
    overall: Counts = field(default_factory=Counts)
    segments: tuple[tuple[str, Counts], ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceCounts:
    """Everything that a verdict is computed from, but how to judge.

    Attributes:
        key: what was counted.
        gates: sorted by metric.
        arms: of the split.
        offsets: source (a topic's partition, a journal) and the position after the last pair that is
            counted; sorted.
    """

    key: EvidenceKey
    gates: tuple[GateCounts, ...] = ()
    arms: tuple[ArmCounts, ...] = ()
    offsets: tuple[tuple[str, int], ...] = ()


def params_of(route: Route, candidate: str) -> Params:
    """Return how the ramp of `route` judges a candidate; no gates where it has no ramp.

    Pairs of users whom the candidate serves are always recorded, the others at its mirror percent.

    Raises:
        KeyError: the route has no such candidate.
    """
    mirror_bp = {each.name: each.mirror_bp for each in route.candidates}[candidate]
    gates = () if route.ramp is None else route.ramp.gates
    return Params(
        gates=tuple(
            GateParams(
                metric=Metric(gate.metric),
                margin=gate.margin,
                budget_s=gate.budget_s,
                has_noise_floor=gate.metric == Metric.AGREEMENT and route.replicate_bp > 0,
            )
            for gate in gates
        ),
        floor=(mirror_bp or FULL_BP) / FULL_BP,
    )


#: The fields of a pair record that its key is made of, in the key's order.
key_fields: Final = itemgetter(
    "experiment_id", "route", "candidate", "config_version",
    "primary_model_version", "candidate_model_version",
)  # fmt: skip


#: The values of `key_fields`.
KeyFields = tuple[str, str, str, str, str | None, str | None]


@dataclass(slots=True)
class LastVersions:
    """The model versions that answered last: what a call that failed is charged to."""

    primary: str | None = None
    candidate: str | None = None

    def or_else(self, earlier: LastVersions) -> LastVersions:
        """Return these, those of `earlier` where nothing has answered since."""
        return LastVersions(self.primary or earlier.primary, self.candidate or earlier.candidate)

    def completed(self, fields: KeyFields) -> KeyFields:
        """Return `fields` with the last version where one names none; these move on with them."""
        self.primary, self.candidate = fields[4] or self.primary, fields[5] or self.candidate
        return (*fields[:4], self.primary, self.candidate)


def key_of(record: Mapping[str, Any]) -> EvidenceKey:
    """Return the key of a pair record that names its versions."""
    return EvidenceKey(*key_fields(record))


def segment_names(record: Mapping[str, Any]) -> list[str]:
    """Return the segments of a pair record as they are counted."""
    return [f"{name}={value}" for name, value in (record["segments"] or {}).items()]


def add_up(parts: Iterable[EvidenceCounts]) -> EvidenceCounts:
    """Return the counts of shards of one key as if one process had counted all pairs.

    Raises:
        ValueError: no parts, different keys, or a source that is in two of them, whose pairs would
            count twice.
    """
    shards = list(parts)
    if len({shard.key for shard in shards}) != 1:
        raise ValueError("counts of different experiments, configs or models do not add up")
    offsets = sorted(offset for shard in shards for offset in shard.offsets)
    for (source, _), (following, _) in pairwise(offsets):
        if source == following:
            raise ValueError(f"{source} is counted in two shards")
    return EvidenceCounts(
        key=shards[0].key,
        gates=_add_up_gates([gate for shard in shards for gate in shard.gates]),
        arms=merged_arms(shard.arms for shard in shards),
        offsets=tuple(offsets),
    )


def _add_up_gates(parts: list[GateCounts]) -> tuple[GateCounts, ...]:
    found = []
    for metric in sorted({part.metric for part in parts}):
        same = [part for part in parts if part.metric is metric]
        names = sorted({name for part in same for name, _ in part.segments})
        segments = tuple(
            (name, merged(c for part in same for n, c in part.segments if n == name))
            for name in names
        )
        found.append(GateCounts(metric, merged(part.overall for part in same), segments))
    return tuple(found)


@dataclass(slots=True)
class _GateTallies:
    overall: Tally = field(default_factory=Tally)
    segments: dict[str, Tally] = field(default_factory=dict)

    def add(self, value: float | None, weight: float | None, segments: Iterable[str]) -> None:
        self.overall.add(value, weight)
        for name in segments:
            kept = segment_of(self.segments, len(self.segments), name)
            self.segments.setdefault(kept, Tally()).add(value, weight)

    def counts(self, metric: Metric) -> GateCounts:
        segments = tuple((name, self.segments[name].counts()) for name in sorted(self.segments))
        return GateCounts(metric, self.overall.counts(), segments)


class Evidence:
    """Counts of one candidate as pairs come in; memory is bounded, however many.

    At most `MAX_KEYS` keys are kept, the one that was longest without a pair goes first; at most
    `MAX_SEGMENTS` segments for each gate, the others are counted together.

    Args:
        params: how the candidate is judged.
        last: the versions that answered before the first pair; they move on with the pairs.
    """

    __slots__ = ("_dropped", "_keys", "_last", "_latest", "_params")

    def __init__(self, params: Params, last: LastVersions | None = None) -> None:
        self._params = params
        self._last = last or LastVersions()
        self._keys: dict[EvidenceKey, dict[Metric, _GateTallies]] = {}
        self._dropped = 0
        # The key of the latest pair, as its fields, with its counts: most pairs have the one of the
        # pair before, and a key costs as much as all the rest.
        self._latest: tuple[KeyFields, dict[Metric, _GateTallies]] | None = None

    def note(self, record: Mapping[str, Any]) -> KeyFields:
        """Count a pair record in every gate that is offered it; return the fields of its key."""
        fields = self._last.completed(key_fields(record))
        if self._latest is None or self._latest[0] != fields:
            self._latest = fields, self._of(EvidenceKey(*fields))
        gates = self._latest[1]
        weight = inverse_weight(record["sample_prob"], self._params.floor)
        segments = segment_names(record)
        for gate in self._params.gates:
            if is_offered(gate.metric, record, has_noise_floor=gate.has_noise_floor):
                value = difference(
                    gate.metric,
                    record,
                    has_noise_floor=gate.has_noise_floor,
                    budget_s=gate.budget_s,
                )
                tallies = gates.get(gate.metric)
                if tallies is None:
                    tallies = gates[gate.metric] = _GateTallies()
                tallies.add(value, weight, segments)
        return fields

    def note_label(
        self,
        fields: KeyFields,
        value: float | None,
        sample_prob: float = 1.0,
        segments: Iterable[str] = (),
    ) -> None:
        """Count D of a pair whose label has come (`gates.correctness`, `gates.error_difference`).

        Args:
            fields: of the pair's key, as `note` has returned them.
            value: None where it has no D.
            sample_prob: of the pair being recorded.
            segments: as `segment_names` has them.
        """
        weight = inverse_weight(sample_prob, self._params.floor)
        self._latest = None
        gates = self._of(EvidenceKey(*fields))
        gates.setdefault(Metric.CORRECTNESS, _GateTallies()).add(value, weight, segments)

    def counts(self, key: EvidenceKey) -> EvidenceCounts:
        """Return the counts of `key`, none where there are none."""
        gates = self._keys.get(key, {})
        return EvidenceCounts(key, tuple(gates[metric].counts(metric) for metric in sorted(gates)))

    def keys(self) -> tuple[EvidenceKey, ...]:
        """Return the keys that have counts, the one with the newest pair last."""
        return tuple(key for key, gates in self._keys.items() if gates)

    def statistics(self) -> dict[str, int]:
        """Return how many keys are kept and were dropped, and the bound on segments."""
        return {"keys": len(self._keys), "dropped": self._dropped, "max_segments": MAX_SEGMENTS}

    def _of(self, key: EvidenceKey) -> dict[Metric, _GateTallies]:
        """Return the counts of a key, which is the newest then."""
        gates = self._keys.pop(key, None)
        if gates is None:
            gates = {}
            while len(self._keys) >= MAX_KEYS:
                del self._keys[next(iter(self._keys))]
                self._dropped += 1
        self._keys[key] = gates
        return gates
