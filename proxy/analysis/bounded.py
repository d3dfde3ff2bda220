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
#: Longest answer shown, in characters.
ANSWER_CHARS: Final = 2_000


class BoundedCounter:
    """A counter of at most `limit` keys and `OTHER`, which takes what comes later."""

    __slots__ = ("_counts", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: Counter[Hashable] = Counter()

    def add(self, counts: Mapping[Any, int]) -> None:
        """Add `counts`."""
        if len(self._counts) + len(counts) <= self.limit:
            self._counts.update(counts)
            return
        for key, count in counts.items():
            is_known = key in self._counts or len(self._counts) < self.limit
            self._counts[key if is_known else OTHER] += count

    def merge(self, other: BoundedCounter) -> None:
        """Add everything that `other` has counted."""
        self.add(other._counts)

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
        self.limit = limit
        self._heap: list[tuple[float, int, Disagreement]] = []
        self._order = 0

    def takes(self, difference: object) -> bool:
        """Return whether a pair with this `abs_diff` would be among the worst so far."""
        if len(self._heap) < self.limit:
            return True
        # Later ones of the same rank come after those that are here.
        return bool(self.limit) and _rank(difference) > self._heap[0][0]

    def offer(self, record: Record) -> None:
        """Keep `record`, a pair that differs, if it is among the worst so far."""
        self._order -= 1
        difference = record["abs_diff"]
        if self.takes(difference):
            self._keep((_rank(difference), self._order, _disagreement(record)))

    def merge(self, later: WorstPairs) -> None:
        """Keep the worst of these and of `later` ones."""
        for rank, order, disagreement in later._heap:
            self._keep((rank, self._order + order, disagreement))
        self._order += later._order

    def ranked(self) -> tuple[Disagreement, ...]:
        """Return them, the worst first."""
        # Ranks and orders together are unique, so two disagreements are never compared.
        return tuple(entry[2] for entry in sorted(self._heap, reverse=True))

    def _keep(self, entry: tuple[float, int, Disagreement]) -> None:
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        elif self.limit and entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)


def _rank(difference: object) -> float:
    return float(difference) if type(difference) in (int, float) else -1.0  # type: ignore[arg-type]


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
        primary_answer=_answer(record, "primary"),
        candidate_answer=_answer(record, "candidate"),
    )


def _answer(record: Record, side: str) -> str | None:
    body = record.get(f"{side}_body")
    if type(body) is not str:
        return None
    return body if len(body) <= ANSWER_CHARS else body[:ANSWER_CHARS] + "…"


def shortened(prediction: object) -> str:
    """Return `prediction` as JSON, cut after `PREDICTION_CHARS` with an ellipsis."""
    # Bytes first: decoding a megabyte to show a line of it would be a waste.
    text = orjson.dumps(prediction)[: 4 * PREDICTION_CHARS + 4].decode(errors="ignore")
    return text if len(text) <= PREDICTION_CHARS else text[:PREDICTION_CHARS] + "…"
