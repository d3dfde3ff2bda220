"""What one replica tells the others of its recorders' counts, so that the leader can judge all of them.

Counts are told as often as they change, and split keys, which take up to 45 KB for each weight, more
seldom: a canary is at one weight at a time, so of one weight at a time they change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from proxy.comparison.split_keys import SplitKeys
from proxy.config.resolved import Config
from proxy.control.ramp_entry import Entry
from proxy.control.replicas import Replicas
from proxy.ramp.window import Published
from proxy.replicas.asides import Tossed, packed
from proxy.replicas.evidence import MOST_KEYS
from proxy.replicas.messages import Counted
from proxy.telemetry import monotonic_s

#: How often split keys are told, at most.
KEYS_S: Final = 5.0
#: Bytes that tell one secret from another, and are of no use to whoever guesses at it.
_MARK_BYTES: Final = 2


class OwnCounts:
    """Tells what has changed since it was told last.

    Args:
        config: the one that is counted for.
        replicas: this replica among the others.
    """

    def __init__(self, config: Config, replicas: Replicas) -> None:
        self._replicas = replicas
        self._version = config.version
        self._hashed_by = _mark(config)
        self._told: dict[str, Published] = {}
        self._next_keys_s = 0.0

    def tell(
        self,
        entries: Iterable[Entry],
        counted: Mapping[str, Published],
        splits: Mapping[str, SplitKeys],
    ) -> None:
        """Tell of ramps that are judged; nothing while there is no line, since it would be forgotten.

        Args:
            entries: the ramps.
            counted: by `route/candidate`; under the empty name, of all others.
            splits: the split keys that were seen.
        """
        if self._replicas.refusal():
            return
        now_s = monotonic_s()
        has_keys = now_s >= self._next_keys_s
        if has_keys:
            self._next_keys_s = now_s + KEYS_S
        for entry in entries:
            self._tell_counts(entry, counted.get(entry.name, counted.get("", Published())))
            if has_keys and entry.name in splits:
                self._tell_keys(entry, splits[entry.name])

    def _tell_counts(self, entry: Entry, found: Published) -> None:
        if found is self._told.get(entry.name):
            return
        self._told[entry.name] = found
        parts: list[Any] = orjson.loads(orjson.dumps(found.parts))
        self._replicas.tell(
            Counted(
                entry.route.name, entry.candidate.name, self._version, found.caught_up_ms,
                found.problem, parts, self._replicas.origin("", "", ""),
            )
        )  # fmt: skip

    def _tell_keys(self, entry: Entry, found: SplitKeys) -> None:
        """Tell the keys of each weight of which the topic does not have just these."""
        known = {each.key: each for each in self._replicas.asides.tossed(entry.name)}
        bounded = SplitKeys(MOST_KEYS)
        bounded.merge(found)
        for notes in bounded.as_notes():
            message = Tossed(
                entry.route.name, entry.candidate.name, int(notes["weight_bp"]), self._version,
                self._hashed_by, packed(notes), self._replicas.origin("", "", ""),
            )  # fmt: skip
            last = known.get(message.key)
            if last is None or replace(last, origin=message.origin) != message:
                self._replicas.tell(message)


def _mark(config: Config) -> str:
    """Return the name of the secret that this replica's split keys are hashed by."""
    secret = config.record.hash_key
    if not secret:
        return f"own key of {config.instance}"
    key = hashlib.blake2b(secret.encode()).digest()
    return f"key {hashlib.blake2b(b'replicas', digest_size=_MARK_BYTES, key=key).hexdigest()}"
