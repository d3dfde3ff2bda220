"""What recorders count for the gates of ramps: which pairs, into which counts, and where they are kept.

Only routes with a ramp are counted, and only pairs of the config that runs now: those of another can
promote nobody. A window of a journal is counted for itself and added when it is delivered; the sum is
committed with the journal's position (`proxy.journal.reader`), so that a recorder that dies counts
nothing twice and loses nothing. What the counts mean is decided in `proxy.comparison`.

The split is counted, too (`proxy.comparison.sample_ratio`). Where a route has one candidate, all of it
mirrored, and is split by the request, every request is a key of its own that leaves a pair, and is
counted like all else. Elsewhere each key counts once, of as many as are remembered
(`proxy.comparison.split_keys`): these are kept in memory and in the file that is published, and
nothing is lost or doubled when some of them are seen again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.comparison.evidence import (
    MAX_KEYS,
    Evidence,
    EvidenceCounts,
    EvidenceKey,
    KeyFields,
    LastVersions,
    add_up,
    params_of,
)
from proxy.comparison.sample_ratio import FULL_BP, ArmCounts
from proxy.comparison.split_keys import SplitKeys, toss_of
from proxy.comparison.verdict_json import counts_of
from proxy.config.resolved import Config, Route, SplitKind
from proxy.journal.segments import replace_file
from proxy.recorder.label_join import LabelJoin, Waiting, waiting_of, wants_labels
from proxy.telemetry import wall_ns

#: Keys kept for each journal: as many as `Evidence` keeps for one candidate, of some candidates.
MAX_KEPT_KEYS: Final = 4 * MAX_KEYS

#: Keys remembered for each weight: 80 KB of a file that is written each second.
MAX_SPLIT_KEYS: Final = 4_096

_Name = tuple[str, str]


class Gates:
    """Which pairs of a config count for a ramp, and how."""

    def __init__(self, config: Config) -> None:
        self.version = config.version
        routes = [route for route in config.routes if route.ramp is not None]
        self.params = {
            (route.name, candidate.name): params_of(route, candidate.name)
            for route in routes
            for candidate in route.candidates
        }
        labelled = {name: params for name, params in self.params.items() if wants_labels(params)}
        self.join = LabelJoin(labelled) if labelled else None
        self.labelled = frozenset(labelled)
        self.last = {name: LastVersions() for name in self.params}
        self.split = {route.name for route in routes if _is_split_seen(route)}
        self.keys = {
            name: SplitKeys(MAX_SPLIT_KEYS) for name in self.params if name[0] not in self.split
        }

    def recall(self, state_dir: Path, index: int) -> None:
        """Take up the split keys that an earlier recorder has published under the same config."""
        try:
            said = orjson.loads((state_dir / f"evidence-{index}.json").read_bytes())
            if said["config_version"] != self.version:
                return
            for each in said["splits"]:
                keys = self.keys.get((each["route"], each["candidate"]))
                if keys is not None:
                    keys.merge(SplitKeys.of_notes(each["keys"]))
        except (OSError, LookupError, TypeError, ValueError, AttributeError):
            return  # keys that are lost are seen again

    def batch(self) -> BatchEvidence:
        """Return the empty counts of one window."""
        return BatchEvidence(self)

    def publish(
        self,
        state_dir: Path,
        index: int,
        parts: list[dict[str, Any]],
        caught_up_ms: int | None,
    ) -> None:
        """Replace `state_dir/evidence-<index>.json`, which the driver of ramps reads.

        Args:
            state_dir: where.
            index: of this recorder.
            parts: what the notes of its journals say.
            caught_up_ms: all that was journaled before is in them; None before the first time.

        Raises:
            OSError: the disk refuses.
        """
        content = {
            "updated_ms": wall_ns() // 1_000_000,
            "caught_up_ms": caught_up_ms,
            "config_version": self.version,
            "parts": parts,
            "splits": [
                {"route": route, "candidate": candidate, "keys": keys.as_notes()}
                for (route, candidate), keys in self.keys.items()
            ],
        }
        # Not synced, because it is stale after seconds anyway.
        replace_file(state_dir / f"evidence-{index}.json", orjson.dumps(content), is_synced=False)

    def journal(self, said: Any = None) -> JournalEvidence:
        """Return the counts of one journal, beginning with what was committed of it."""
        return JournalEvidence(self, said)


class BatchEvidence:
    """The counts of one window of a journal.

    Attributes:
        waiting: pairs that are to be held against their labels.
    """

    __slots__ = ("_arms", "_evidence", "_gates", "_last_ms", "waiting")

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._evidence: dict[_Name, Evidence] = {}
        # By the fields of keys, which are quicker than keys.
        self._arms: dict[KeyFields, Counter[tuple[int, bool]]] = {}
        self._last_ms: dict[KeyFields, int] = {}
        self.waiting: list[Waiting] = []

    def note(self, record: Mapping[str, Any]) -> None:
        """Count a pair record, if it is of a ramp's candidate and of the config that runs."""
        name = record["route"], record["candidate"]
        params = self._gates.params.get(name)
        if params is None or record["config_version"] != self._gates.version:
            return
        evidence = self._evidence.get(name)
        if evidence is None:
            evidence = self._evidence[name] = Evidence(params, self._gates.last[name])
        fields = evidence.note(record)
        self._last_ms[fields] = max(record["ts_ms"], self._last_ms.get(fields, 0))
        if name in self._gates.labelled:
            self.waiting.append(waiting_of(record, fields))
        if name[0] in self._gates.split and _is_assigned(record):
            self._note_split(fields, record)
        keys = self._gates.keys.get(name)
        if keys is not None:
            toss = toss_of(record)
            if toss is not None:
                keys.note(record["unit_hash"], toss)

    def parts(self) -> list[tuple[EvidenceCounts, int]]:
        """Return the counts of each key, with the time of its newest pair."""
        found = []
        for evidence in self._evidence.values():
            for key in evidence.keys():  # noqa: SIM118 - no mapping
                counts = evidence.counts(key)
                fields = astuple(key)
                arms = _arms(key, self._arms.get(fields, Counter()))
                found.append((EvidenceCounts(key, counts.gates, arms), self._last_ms[fields]))
        return found

    def _note_split(self, key: KeyFields, record: Mapping[str, Any]) -> None:
        is_hit = record["served_by"] == "candidate" or record["rescued"]
        probability = record["assign_prob"] if is_hit else 1.0 - record["assign_prob"]
        self._arms.setdefault(key, Counter())[round(probability * FULL_BP), is_hit] += 1


class JournalEvidence:
    """The counts of all that was delivered of one journal, over all starts.

    Args:
        gates: of the config that runs.
        said: what `as_notes` gave in an earlier life; counts of other configs are left behind, and
            what cannot be read as well.
    """

    def __init__(self, gates: Gates, said: Any = None) -> None:
        self._kept: dict[EvidenceKey, tuple[EvidenceCounts, int]] = {}
        self.is_changed = False
        try:
            found = [(counts_of(each["counts"]), int(each["last_ms"])) for each in said or ()]
        except (LookupError, TypeError, ValueError, AttributeError):
            found = []  # evidence that is lost is gathered again
        for counts, last_ms in found:
            if counts.key.config_version == gates.version:
                self._kept[counts.key] = counts, last_ms

    def add(self, parts: Iterable[tuple[EvidenceCounts, int]]) -> None:
        """Add what one window gave; the key that was longest without a pair makes room."""
        for counts, last_ms in parts:
            key = counts.key
            before, before_ms = self._kept.pop(key, (EvidenceCounts(key), 0))
            while len(self._kept) >= MAX_KEPT_KEYS:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = add_up([before, counts]), max(before_ms, last_ms)
            self.is_changed = True

    def as_notes(self) -> list[dict[str, Any]]:
        """Return the counts as JSON values, to be kept with the journal's position."""
        parts = [{"counts": counts, "last_ms": at} for counts, at in self._kept.values()]
        found: list[dict[str, Any]] = orjson.loads(orjson.dumps(parts))
        return found


def _is_split_seen(route: Route) -> bool:
    """Return whether the recorder sees every request of a route exactly once, with its side."""
    return (
        route.split.kind is SplitKind.REQUEST_ID
        and len(route.candidates) == 1
        and route.candidates[0].mirror_bp == FULL_BP
    )


def _is_assigned(record: Mapping[str, Any]) -> bool:
    """Return whether a pair says anything of the split.

    A request that goes to one backend only leaves a pair on one side, and none on the other.
    """
    statuses = record["primary_status"], record["candidate_status"]
    return bool(record["sample_prob"] == 1.0 and "not_sent" not in statuses)


def _arms(key: EvidenceKey, counted: Counter[tuple[int, bool]]) -> tuple[ArmCounts, ...]:
    cells = tuple(
        (probability_bp, counted[probability_bp, True], counted[probability_bp, False])
        for probability_bp in sorted({bp for bp, _ in counted})
    )
    return (ArmCounts(f"canary {key.candidate}", cells),) if cells else ()
