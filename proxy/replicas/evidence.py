"""The evidence of all replicas as one: whose counts there must be, and when there is none. Pure.

Counts add up exactly, those of replicas that are gone included: what they counted, they counted. Only
the living must have caught up, and all of them must run the same config; else nothing is promoted.

Split keys are merged as those of the recorders of one instance are: a user who was seen by several
replicas counts once. That takes the same `record.hash_key`; keys that are hashed by different secrets
cannot be compared, so each secret's are arms of their own. They may hold the same users: arms are averaged,
and the mean of e-processes is one however they depend on each other.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from proxy.comparison.sample_ratio import ArmCounts
from proxy.comparison.split_keys import MAX_WEIGHTS, SplitKeys
from proxy.comparison.verdict_json import counts_of
from proxy.ramp.window import Part, Published
from proxy.replicas.asides import Tossed, unpacked
from proxy.replicas.messages import Beat, Counted

#: Split keys of one weight: of each replica, as it tells them, and of all together.
MOST_KEYS: Final = 4_096


@dataclass(frozen=True, slots=True)
class _Merge:
    """A merge, and what it was made of: the messages, and the living replicas with their configs."""

    messages: tuple[Counted | Tossed, ...]
    living: frozenset[tuple[str, str]]
    published: Published

    def is_of(
        self, messages: tuple[Counted | Tossed, ...], living: frozenset[tuple[str, str]]
    ) -> bool:
        """Return whether it was made of these very messages."""
        return living == self.living and _are_same(messages, self.messages)


class Together:
    """Merges what replicas have counted, anew only where one of them has counted more.

    Args:
        config_version: of this replica.
        most_keys: split keys kept for each weight.
    """

    def __init__(self, config_version: str, most_keys: int = MOST_KEYS) -> None:
        self._version = config_version
        self._most_keys = most_keys
        self._arms: dict[
            tuple[str, int, str], tuple[tuple[Tossed, ...], tuple[ArmCounts, ...]]
        ] = {}
        self._parts: dict[str, tuple[Counted, tuple[Part, ...]]] = {}
        self._merged: dict[str, _Merge] = {}

    def published(
        self,
        name: str,
        counted: Mapping[str, Counted],
        living: Mapping[str, Beat],
        tossed: Iterable[Tossed] = (),
    ) -> Published:
        """Return what all replicas have counted for a candidate.

        Args:
            name: `route/candidate`.
            counted: by the replica's name.
            living: the replicas that live.
            tossed: the split keys that each has seen at each weight.
        """
        keys = tuple(each for each in tossed if each.config_version == self._version)
        messages: tuple[Counted | Tossed, ...] = (*counted.values(), *keys)
        alive = frozenset((each, beat.config_version) for each, beat in living.items())
        known = self._merged.get(name)
        if known is None or not known.is_of(messages, alive):
            known = _Merge(messages, alive, self._merge(counted, living, keys))
            self._merged[name] = known
        return known.published

    def _merge(
        self, counted: Mapping[str, Counted], living: Mapping[str, Beat], keys: tuple[Tossed, ...]
    ) -> Published:
        reached_ms: list[int] = []
        for name, beat in sorted(living.items()):
            if beat.config_version != self._version:
                return Published(
                    problem=f"replica {name} runs config {beat.config_version}, not {self._version}"
                )
            found = counted.get(name)
            if found is None or found.config_version != self._version:
                return Published(problem=f"replica {name} has counted nothing yet")
            if found.problem or found.caught_up_ms is None:
                return Published(
                    problem=f"replica {name}: {found.problem or 'it has not caught up'}"
                )
            reached_ms.append(found.caught_up_ms)
        try:
            parts = tuple(part for each in counted.values() for part in self._parts_of(each))
            arms = tuple(self._all_arms(keys))
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            return Published(problem=f"a replica's counts are no use: {exc}")
        return Published(parts, min(reached_ms, default=None), arms=arms)

    def _all_arms(self, keys: tuple[Tossed, ...]) -> Iterator[ArmCounts]:
        """Yield the arms of each secret; they are named where there are several."""
        by_secret = [
            (secret, tuple(found))
            for secret, found in groupby(
                sorted(keys, key=lambda each: each.hashed_by), lambda each: each.hashed_by
            )
        ]
        for secret, found in by_secret:
            word = f" ({secret})" if len(by_secret) > 1 else ""
            for weight_bp in sorted({each.weight_bp for each in found})[:MAX_WEIGHTS]:
                of_weight = tuple(each for each in found if each.weight_bp == weight_bp)
                for arm in self._arms_of((of_weight[0].name, weight_bp, secret), of_weight):
                    yield replace(arm, name=arm.name + word)

    def _arms_of(
        self, key: tuple[str, int, str], found: tuple[Tossed, ...]
    ) -> tuple[ArmCounts, ...]:
        """Return the arm of one weight, if its declared chance is known."""
        known = self._arms.get(key)
        if known is None or not _are_same(known[0], found):
            merged = SplitKeys(self._most_keys)
            for each in found:
                notes = {**unpacked(each.keys), "weight_bp": each.weight_bp}
                merged.merge(SplitKeys.of_notes([notes]))
            known = self._arms[key] = found, merged.arms(found[0].candidate)
        return known[1]

    def _parts_of(self, counted: Counted) -> tuple[Part, ...]:
        if counted.config_version != self._version:
            return ()
        known = self._parts.get(counted.key)
        if known is None or known[0] is not counted:
            parts = tuple(
                Part(counts_of(each["counts"]), int(each["last_ms"])) for each in counted.parts
            )
            known = self._parts[counted.key] = (counted, parts)
        return known[1]


def _are_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))
