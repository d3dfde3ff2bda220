"""Which keys a canary got and which it did not: the arms of the split, from recorded pairs, by key.

A user with a hundred requests is one toss of the coin, so every split key counts once
(`sample_ratio`). Which keys have been counted must be remembered, in memory that does not grow: kept
are the keys whose `unit_hash`, which is independent of the side, is below a threshold that is halved
whenever there are more than the limit. What is kept follows from the keys that were seen and from
nothing else, so shards of any traffic merge into exactly what one process would have kept, and a key
that several of them saw still counts once.

Choosing the threshold by what has been seen is paid for. Each threshold's keys give an e-process of
their own; with shares 1/2, 1/4, … of the wealth on them the mean is one, too, and the part that is
looked at is no more than the mean. So the evidence of a threshold that was halved h times is taken
at 2 ** -(h + 1) of its value, and may be looked at all the time.

Each weight has keys of its own: while a ramp goes up, a key may be missed at 1% and hit at 10%, and
both are as declared. A weight's keys are an arm where the records tell its chance: where no other
candidate serves at the same time, and other pairs are recorded with one probability. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from proxy.comparison.sample_ratio import FULL_BP, KeyCounts

#: Keys kept for one weight: 11.6% or 8.5% instead of 10% are found with so many, 52.6% instead of 50%.
MAX_KEYS: Final = 8_192
#: Weights kept, the lowest; ramps have a handful.
MAX_WEIGHTS: Final = 32

#: Digits of a `unit_hash` that are looked at, and how many values they have.
_DIGITS: Final = 16
_HASHES: Final = 1 << 64


class Toss(NamedTuple):
    """What a pair says about its key.

    Attributes:
        weight_bp: the candidate's declared share.
        is_hit: the candidate was to serve.
        sample_prob: of the pair being recorded.
        is_alone: no other candidate could have served; None where the pair does not tell.
    """

    weight_bp: int
    is_hit: bool
    sample_prob: float
    is_alone: bool | None


def toss_of(record: Mapping[str, Any]) -> Toss | None:
    """Return what a pair says of the split; None where it says nothing.

    That is: where the candidate gets all or no keys, and where one side got no request, because it
    may not be asked twice: such a request leaves a pair on one side, and none on the other.
    """
    weight_bp, assign_prob = record["ramp_weight_bp"], record["assign_prob"]
    if weight_bp is None or assign_prob is None or not 0 < weight_bp < FULL_BP:
        return None
    if "not_sent" in (record["primary_status"], record["candidate_status"]):
        return None
    assign_bp = round(assign_prob * FULL_BP)
    if record["served_by"] == "candidate" or record["rescued"]:
        return Toss(weight_bp, is_hit=True, sample_prob=record["sample_prob"], is_alone=None)
    if assign_bp == FULL_BP:
        return None  # the canary is killed, whatever its weight
    is_alone = assign_bp + weight_bp == FULL_BP
    return Toss(weight_bp, is_hit=False, sample_prob=record["sample_prob"], is_alone=is_alone)


@dataclass(slots=True)
class _Keys:
    """The keys of one weight.

    Attributes:
        hits: for each kept hash, whether the candidate was to serve it.
        halvings: of the threshold, from 2 ** 64.
        sample_probs: with which the other pairs are recorded; two are as many as are told apart.
        is_alone: no pair says that other candidates served, too.
    """

    hits: dict[int, bool] = field(default_factory=dict)
    halvings: int = 0
    sample_probs: frozenset[float] = frozenset()
    is_alone: bool = True

    def note(self, unit: int, toss: Toss) -> None:
        if not toss.is_hit and toss.sample_prob not in self.sample_probs:
            self._note_probs(frozenset({toss.sample_prob}))
        self.is_alone &= toss.is_alone is not False
        if unit < _HASHES >> self.halvings:
            self.hits[unit] = self.hits.get(unit, False) or toss.is_hit

    def merge(self, other: _Keys) -> None:
        self._note_probs(other.sample_probs)
        self.is_alone &= other.is_alone
        for unit, is_hit in other.hits.items():
            self.hits[unit] = self.hits.get(unit, False) or is_hit
        self.halvings = max(self.halvings, other.halvings)
        self._forget()

    def shrink(self, limit: int) -> None:
        """Halve the threshold until at most `limit` keys are kept."""
        while len(self.hits) > limit:
            self.halvings += 1
            self._forget()

    def arm(self, name: str, weight_bp: int) -> KeyCounts | None:
        """Return the counts; None where the declared chance is not known."""
        if len(self.sample_probs) != 1 or not self.is_alone:
            return None
        (sample_prob,) = self.sample_probs
        share = weight_bp / FULL_BP
        chance = share / (share + (1.0 - share) * sample_prob)
        # Never impossible nor certain by rounding, which is far below what these keys can tell.
        chance_bp = min(max(round(chance * FULL_BP), 1), FULL_BP - 1)
        hits = sum(self.hits.values())
        return KeyCounts(name, ((chance_bp, hits, len(self.hits) - hits),), self.halvings + 1)

    def _note_probs(self, found: frozenset[float]) -> None:
        if len(self.sample_probs) < 2:
            self.sample_probs |= found

    def _forget(self) -> None:
        bound = _HASHES >> self.halvings
        self.hits = {unit: is_hit for unit, is_hit in self.hits.items() if unit < bound}


class SplitKeys:
    """The keys of one candidate under one config, by weight.

    Args:
        limit: keys kept for each weight.
    """

    __slots__ = ("_limit", "_weights")

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._limit = limit
        self._weights: dict[int, _Keys] = {}

    def note(self, unit_hash: Any, toss: Toss) -> None:
        """Note that the key of `unit_hash` was tossed; what is no hexadecimal hash is left out."""
        try:
            unit = int(unit_hash[:_DIGITS], 16)
        except (TypeError, ValueError):
            return
        keys = self._of(toss.weight_bp)
        if keys is not None and 0 <= unit < _HASHES:
            keys.note(unit, toss)
            keys.shrink(self._limit)

    def merge(self, other: SplitKeys) -> None:
        """Note everything that `other` has noted."""
        for weight_bp, theirs in sorted(other._weights.items()):
            keys = self._of(weight_bp)
            if keys is not None:
                keys.merge(theirs)
                keys.shrink(self._limit)

    def arms(self, candidate: str) -> tuple[KeyCounts, ...]:
        """Return an arm for each weight whose declared chance is known, sorted by name."""
        found = (
            keys.arm(f"canary {candidate} at {weight_bp / 100:g}%", weight_bp)
            for weight_bp, keys in self._weights.items()
        )
        return tuple(sorted((arm for arm in found if arm), key=lambda arm: arm.name))

    def as_notes(self) -> list[dict[str, Any]]:
        """Return everything as JSON values."""
        return [
            {
                "weight_bp": weight_bp,
                "halvings": keys.halvings,
                "sample_probs": sorted(keys.sample_probs),
                "is_alone": keys.is_alone,
                "hits": [unit for unit, is_hit in keys.hits.items() if is_hit],
                "misses": [unit for unit, is_hit in keys.hits.items() if not is_hit],
            }
            for weight_bp, keys in sorted(self._weights.items())
        ]

    @classmethod
    def of_notes(cls, said: list[dict[str, Any]]) -> SplitKeys:
        """Return what `as_notes` has told.

        Raises:
            LookupError, TypeError, ValueError: it is not that.
        """
        found = cls()
        for each in said:
            found._weights[int(each["weight_bp"])] = _Keys(
                {int(unit): side == "hits" for side in ("hits", "misses") for unit in each[side]},
                int(each["halvings"]),
                frozenset(map(float, each["sample_probs"])),
                bool(each["is_alone"]),
            )
        return found

    def _of(self, weight_bp: int) -> _Keys | None:
        """Return the keys of a weight; None where there are lower ones enough."""
        keys = self._weights.get(weight_bp)
        if keys is None:
            if len(self._weights) >= MAX_WEIGHTS:
                highest = max(self._weights)
                if weight_bp > highest:
                    return None
                del self._weights[highest]
            keys = self._weights[weight_bp] = _Keys()
        return keys
