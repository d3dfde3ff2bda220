"""The evidence of all replicas as one: whose counts there must be, and when there is none. Pure.

Counts add up exactly, those of replicas that are gone included: what they counted, they counted. Only
the living must have caught up, and all of them must run the same config; else nothing is promoted.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.comparison.verdict_json import counts_of
from proxy.ramp.window import Part, Published
from proxy.replicas.messages import Beat, Counted


@dataclass(frozen=True, slots=True)
class _Merge:
    """A merge, and what it was made of: the counts, and the living replicas with their configs."""

    counted: tuple[Counted, ...]
    living: frozenset[tuple[str, str]]
    published: Published

    def is_of(self, counted: tuple[Counted, ...], living: frozenset[tuple[str, str]]) -> bool:
        """Return whether it was made of these very counts."""
        is_same = len(counted) == len(self.counted) and living == self.living
        return is_same and all(map(operator.is_, counted, self.counted))


class Together:
    """Merges what replicas have counted, anew only where one of them has counted more."""

    def __init__(self, config_version: str) -> None:
        self._version = config_version
        self._parts: dict[str, tuple[Counted, tuple[Part, ...]]] = {}
        self._merged: dict[str, _Merge] = {}

    def published(
        self, name: str, counted: Mapping[str, Counted], living: Mapping[str, Beat]
    ) -> Published:
        """Return what all replicas have counted for a candidate.

        Args:
            name: `route/candidate`.
            counted: by the replica's name.
            living: the replicas that live.
        """
        counts = tuple(counted.values())
        alive = frozenset((each, beat.config_version) for each, beat in living.items())
        known = self._merged.get(name)
        if known is None or not known.is_of(counts, alive):
            known = _Merge(counts, alive, self._merge(counted, living))
            self._merged[name] = known
        return known.published

    def _merge(self, counted: Mapping[str, Counted], living: Mapping[str, Beat]) -> Published:
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
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            return Published(problem=f"a replica's counts are no use: {exc}")
        return Published(parts, min(reached_ms, default=None))

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
