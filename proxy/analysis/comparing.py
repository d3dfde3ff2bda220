"""A candidate's tally as the plain counts of a summary: one look, no test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from proxy.analysis.bounded import OTHER
from proxy.analysis.proportions import Correctness, proportion
from proxy.analysis.rows import CELL_FIELDS
from proxy.analysis.summary import Comparison, Confusion, Leg, Quantiles
from proxy.analysis.tally import MAX_CELLS, SIDES, PairTally
from proxy.analysis.wording import headline
from proxy.comparison.gates import FAILED
from proxy.comparison.sketch import QuantileSketch

#: How many values of a field are reported.
TOP: Final = 10


def comparison_of(
    tally: PairTally, route: str, candidate: str, correctness: Correctness | None = None
) -> Comparison:
    """Return what has been counted so far, under the names given, and what labels say of it."""
    cells = Cells(tally.cells.ranked(MAX_CELLS + 1))
    is_comparable = cells.where("comparable", value=True)
    agreement = proportion(is_comparable.count("equal", value=True), is_comparable.total)
    repeated, noisy = (cells.count("replicate_equal", value=v) for v in (True, False))
    legs = {side: _leg(tally, side, cells) for side in SIDES}
    name = f"{route}/{candidate}"
    return Comparison(
        route=route,
        candidate=candidate,
        headline=headline(
            name, tally.pairs, agreement, legs["primary"], legs["candidate"], correctness
        ),
        pairs=tally.pairs,
        first_ts_ms=tally.times_ms[0],
        last_ts_ms=tally.times_ms[1],
        modes=cells.by("mode"),
        served_by=cells.by("served_by"),
        rescued=cells.count("rescued", value=True),
        comparators=cells.by("comparator"),
        agreement=agreement,
        self_agreement=proportion(repeated, repeated + noisy),
        not_comparable=cells.where("comparable", value=False).by("not_comparable_reason"),
        primary_leg=legs["primary"],
        candidate_leg=legs["candidate"],
        latency_difference_ms=_quantiles(tally.latency_difference_ms),
        abs_diff=_quantiles(tally.abs_diff),
        rel_diff=_quantiles(tally.rel_diff),
        confusion=_confusion(tally),
        worst=tally.worst.ranked(),
        config_versions=tally.labels["config_version"].top(TOP),
        experiments=tally.labels["experiment_id"].top(TOP),
        sample_probabilities=tally.labels["sample_prob"].top(TOP),
        correctness=correctness,
    )


def _confusion(tally: PairTally) -> tuple[Confusion, ...]:
    labels = tally.predictions.labels
    differing = [
        Confusion(key[0], key[1], pairs)
        for key, pairs in labels.ranked(labels.limit + 1)
        if key != OTHER and key[0] != key[1]
    ]
    return tuple(differing[:TOP])


def _leg(tally: PairTally, side: str, cells: Cells) -> Leg:
    statuses = cells.by(f"{side}_status")
    failed = sum(statuses.get(status, 0) for status in FAILED)
    return Leg(
        statuses=statuses,
        http_statuses=cells.by(f"{side}_http_status"),
        errors=proportion(failed, failed + statuses.get("ok", 0)),
        top_errors=tally.labels[f"{side}_error"].top(TOP),
        latency_ms=_quantiles(tally.latency_ms[side]),
        truncated_bodies=cells.count(f"{side}_body_state", value="truncated"),
        model_versions=tally.labels[f"{side}_model_version"].top(TOP),
    )


class Cells:
    """Counts by combination of fields, to be asked by one field at a time."""

    def __init__(self, cells: Iterable[tuple[Any, int]]) -> None:
        # OTHER, the one key that is no tuple, stands for combinations beyond the limit.
        self._cells = [(cell, count) for cell, count in cells if cell != OTHER]
        self.total = sum(count for _, count in self._cells)

    def where(self, name: str, *, value: object) -> Cells:
        """Return those in which a field has a value."""
        index = CELL_FIELDS.index(name)
        return Cells(item for item in self._cells if item[0][index] is value)

    def count(self, name: str, *, value: object) -> int:
        """Return how many pairs have a value in a field."""
        index = CELL_FIELDS.index(name)
        return sum(count for cell, count in self._cells if cell[index] == value)

    def by(self, name: str) -> dict[str, int]:
        """Return the pairs by the values of a field, the most frequent first."""
        index = CELL_FIELDS.index(name)
        counts: Counter[str] = Counter()
        for cell, count in self._cells:
            if cell[index] is not None:
                counts[str(cell[index])] += count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _quantiles(sketch: QuantileSketch) -> Quantiles:
    has_values = sketch.count > 0
    return Quantiles(
        count=sketch.count,
        mean=sketch.mean(),
        minimum=sketch.minimum if has_values else None,
        p50=sketch.quantile(0.5),
        p90=sketch.quantile(0.9),
        p99=sketch.quantile(0.99),
        maximum=sketch.maximum if has_values else None,
    )
