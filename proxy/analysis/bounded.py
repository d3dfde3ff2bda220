"""Counters and rankings that stay small however many pairs pass through them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, Final

import orjson

from proxy.analysis.sources import Record
from proxy.analysis.summary import Disagreement

#: What keys beyond the limit of a counter are counted under.
OTHER: Final = "(other)"
#: Longest prediction shown, in characters of JSON.
PREDICTION_CHARS: Final = 160


class BoundedCounter:
    """A counter of at most `limit` keys and `OTHER`, which takes what comes later."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[Hashable] = Counter()

    def add(self, counts: Mapping[Hashable, int]) -> None:
        """Add `counts`."""
        if len(self._counts) + len(counts) <= self._limit:
            self._counts.update(counts)
            return
        for key, count in counts.items():
            is_known = key in self._counts or len(self._counts) < self._limit
            self._counts[key if is_known else OTHER] += count

    def ranked(self, limit: int) -> list[tuple[Any, int]]:
        """Return the most frequent keys and their counts in falling order; None is no key."""
        items = [item for item in self._counts.items() if item[0] is not None]
        return sorted(items, key=lambda item: (-item[1], str(item[0])))[:limit]

    def top(self, limit: int) -> dict[str, int]:
        """Return `ranked` with its keys as text."""
        return {str(key): count for key, count in self.ranked(limit)}


class WorstPairs:
    """The `limit` pairs that differ most by `abs_diff`; of equals, and without one, the first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, Disagreement]] = []
        self._order = 0

    def offer(self, record: Record) -> None:
        """Keep `record`, a pair that differs, if it is among the worst so far."""
        if not self._limit:
            return
        self._order -= 1
        difference = record["abs_diff"]
        rank = -1.0 if difference is None else float(difference)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, (rank, self._order, _disagreement(record)))
        elif (rank, self._order) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (rank, self._order, _disagreement(record)))

    def ranked(self) -> tuple[Disagreement, ...]:
        """Return them, the worst first."""
        # Ranks and orders together are unique, so two disagreements are never compared.
        return tuple(entry[2] for entry in sorted(self._heap, reverse=True))


def _disagreement(record: Record) -> Disagreement:
    path = record.get("first_diff_path")
    return Disagreement(
        pair_id=str(record.get("pair_id")),
        request_id=str(record.get("request_id")),
        ts=str(record.get("ts")),
        abs_diff=record["abs_diff"],
        rel_diff=record["rel_diff"],
        first_diff_path=None if path is None else str(path),
        primary_prediction=shortened(record.get("primary_prediction")),
        candidate_prediction=shortened(record.get("candidate_prediction")),
    )


def shortened(prediction: object) -> str:
    """Return `prediction` as JSON, cut after `PREDICTION_CHARS` with an ellipsis."""
    # Bytes first: decoding a megabyte to show a line of it would be a waste.
    text = orjson.dumps(prediction)[: 4 * PREDICTION_CHARS + 4].decode(errors="ignore")
    return text if len(text) <= PREDICTION_CHARS else text[:PREDICTION_CHARS] + "…"
