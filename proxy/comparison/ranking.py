"""Rankings: what two models put first, and in which order.

A prediction ranks *items*. It is a list of distinct labels, best first; a vector of scores, whose
items are the places; an object of scores by label; or a list of objects with `label` and `score`. A
list of rankings is a batch, compared one by one. Equal scores rank in the order in which they stand.
As with labels, numbers that are all whole on both sides are labels.

`top_k` asks whether the candidate's first item is among the primary's first k. The others measure how
alike the first k are, from 1 (the same) downwards:

* `overlap`: shared items among the first k of each, over k (or over the longer list, if that is shorter);
* `kendall`: Kendall's tau-b over the items that are among the first k of either; an item that a list
  does not have is tied behind all of its items (so that lists of different items have a tau; compare
  Fagin, Kumar and Sivakumar, SIAM J. Discrete Math. 17(1), 2003);
* `ndcg`: normalised discounted cumulative gain of the candidate's order, the gains being the primary's
  scores (less its least, when that is negative), or for lists k, k - 1, … 1 for its first k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

from proxy.comparison.result import ROOT, Comparison, agrees, differs, not_comparable

_NUMBERS: Final = frozenset({int, float})
NOT_A_RANKING: Final = "not_a_ranking"


class Ranking(NamedTuple):
    """Items, best first, and their scores where there are any."""

    items: list[Hashable]
    scores: dict[Hashable, float] | None


Measure = Callable[[Ranking, Ranking, int], float]


def overlap(primary: Ranking, candidate: Ranking, k: int) -> float:
    """Return the share of the first k that both have."""
    size = min(k, max(len(primary.items), len(candidate.items)))
    return len({*primary.items[:k]} & {*candidate.items[:k]}) / size if size else 1.0


def kendall(primary: Ranking, candidate: Ranking, k: int) -> float:
    """Return Kendall's tau-b; 1 when neither list orders anything, 0 when only one does."""
    items = list(dict.fromkeys([*primary.items[:k], *candidate.items[:k]]))
    left, right = _ranks(primary, items), _ranks(candidate, items)
    balance = left_ties = right_ties = 0
    total = len(items) * (len(items) - 1) // 2
    for i, (a, b) in enumerate(zip(left, right, strict=True)):
        for c, d in zip(left[:i], right[:i], strict=True):
            left_ties += a == c
            right_ties += b == d
            balance += ((a > c) - (a < c)) * ((b > d) - (b < d))
    if left_ties == right_ties == total:
        return 1.0
    spread = math.sqrt((total - left_ties) * (total - right_ties))
    return balance / spread if spread else 0.0


def ndcg(primary: Ranking, candidate: Ranking, k: int) -> float:
    """Return NDCG at k; 1 when the primary finds nothing better than anything else."""
    if primary.scores is None:
        gains = {item: float(k - place) for place, item in enumerate(primary.items[:k])}
    else:
        least = min(0.0, *primary.scores.values()) if primary.scores else 0.0
        gains = {item: score - least for item, score in primary.scores.items()}
    ideal = _discounted(gains, primary.items[:k])
    return _discounted(gains, candidate.items[:k]) / ideal if ideal else 1.0


MEASURES: Final[dict[str, Measure]] = {"overlap": overlap, "kendall": kendall, "ndcg": ndcg}


class RankingComparator:
    """Compares rankings by a measure: they agree when it is at least `min_similarity`.

    `abs_diff` is 1 less the least similarity of a batch.
    """

    def __init__(self, *, measure: str, k: int, min_similarity: float) -> None:
        self._measure = MEASURES[measure]
        self._k = k
        # What rounding may take from a measure that is 1 in exact arithmetic.
        self._least = min_similarity - 1e-12

    def __call__(self, primary: Any, candidate: Any, root: str) -> Comparison:
        """Return how alike two rankings, or two batches of them, are."""
        rows = _rows(primary, candidate)
        if rows is None:
            return not_comparable(NOT_A_RANKING)
        worst, path = 1.0, None
        for suffix, left, right in rows:
            if right is None:
                return differs(root + suffix)
            similarity = self._measure(left, right, self._k)
            if similarity < self._least and path is None:
                path = root + suffix or ROOT
            worst = min(worst, similarity)
        distance = max(0.0, 1.0 - worst)
        return agrees(distance) if path is None else differs(path, distance)


class TopKComparator:
    """Compares labels leniently: the candidate's first is among the primary's first k."""

    def __init__(self, *, k: int) -> None:
        self._k = k

    def __call__(self, primary: Any, candidate: Any, root: str) -> Comparison:
        """Return whether each of the candidate's best items is good enough."""
        rows = _rows(primary, candidate)
        if rows is None:
            return not_comparable(NOT_A_RANKING)
        for suffix, left, right in rows:
            if right is None or not self._is_good(left.items, right.items):
                return differs(root + suffix)
        return agrees()

    def _is_good(self, items: list[Hashable], others: list[Hashable]) -> bool:
        return others[0] in items[: self._k] if others else not items


_Row = tuple[str, Ranking, Ranking | None]


def _rows(primary: Any, candidate: Any) -> list[_Row] | None:
    """Return the rankings side by side with their paths; None when the primary has none.

    The candidate's is None where it has none, or another number of them.
    """
    if not _is_batch(primary):
        left = _ranking(primary, candidate)
        return None if left is None else [("", left, _ranking(candidate, primary))]
    others = candidate if _is_batch(candidate) else []
    rows: list[_Row] = []
    for index, row in enumerate(primary):
        other = others[index] if index < len(others) else None
        left = _ranking(row, other)
        if left is None:
            return None
        rows.append((f"[{index}]", left, _ranking(other, row)))
    if len(others) > len(primary):
        rows.append((f"[{len(primary)}]", Ranking([], None), None))
    return rows


def _is_batch(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(row) is list for row in value)


def _ranking(value: Any, other: Any) -> Ranking | None:
    """Return what `value` ranks; `other` helps to tell whole scores from labels."""
    if type(value) is dict:
        return _by_score(list(value.items()))
    if type(value) is not list:
        return None
    kinds = {*map(type, value)}
    if kinds <= _NUMBERS and not (_are_whole(value) and _are_whole(other)):
        places = sorted(range(len(value)), key=value.__getitem__, reverse=True)
        return Ranking(list(places), dict(enumerate(value)))
    if kinds == {dict}:
        return _by_score([(item.get("label"), item.get("score")) for item in value])
    if kinds <= {str, int, float} and len({*value}) == len(value):
        return Ranking(value, None)
    return None


def _are_whole(value: Any) -> bool:
    """Return whether these are labels as numbers; what is no list of numbers does not object."""
    if type(value) is not list or not {*map(type, value)} <= _NUMBERS:
        return True
    return all(float(number).is_integer() for number in value)


def _by_score(scored: Sequence[tuple[Any, Any]]) -> Ranking | None:
    scores: dict[Hashable, float] = {}
    for item, score in scored:
        if type(score) not in _NUMBERS or type(item) not in (str, int) or item in scores:
            return None
        scores[item] = score
    return Ranking(sorted(scores, key=scores.__getitem__, reverse=True), scores)


def _ranks(ranking: Ranking, items: Sequence[Hashable]) -> list[float]:
    """Return for each item a number that falls from the best on; equal for ties."""
    known = ranking.scores
    if known is None:
        known = {item: -float(place) for place, item in enumerate(ranking.items)}
    return [known.get(item, -math.inf) for item in items]


def _discounted(gains: dict[Hashable, float], items: Sequence[Hashable]) -> float:
    return sum(gains.get(item, 0.0) / math.log2(place + 2) for place, item in enumerate(items))
