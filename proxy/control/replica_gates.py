"""What the gates of ramps over replicas say: the leader judges and tells it, the others show it.

It is an aside that decides nothing. It is told when it has changed, at most once a second for each ramp, and
it is bounded. A follower shows it with who says so and since when, and only while it is of the leader of now
and of the very state that holds: a verdict on the step before says nothing of this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from proxy.control.ramp_entry import Entry, told
from proxy.control.replicas import Replicas
from proxy.ramp.phases import JUDGED
from proxy.replicas.asides import Judged, encode
from proxy.telemetry import monotonic_s

#: How often the gates of a ramp are told, at most.
TELL_S: Final = 1.0
#: Of a message; a gate takes some 400.
MOST_BYTES: Final = 16_384


class SharedGates:
    """Tells and hears what gates say.

    Args:
        replicas: this replica among the others.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._next_s: dict[str, float] = {}

    def tell(self, entry: Entry) -> None:
        """Tell the gates of a ramp as its leader, if the topic has something else of them."""
        holds = self._replicas.shared.weights.get(entry.name)
        now_s = monotonic_s()
        if holds is None or entry.kept.state.phase not in JUDGED:
            return
        if now_s < self._next_s.get(entry.name, now_s):
            return
        seen = told(entry)
        message = Judged(
            entry.route.name,
            entry.candidate.name,
            self._replicas.shared.term,
            holds.revision,
            outcome=str(seen["outcome"] or ""),
            pairs=seen["pairs"],
            is_fresh=seen["is_fresh"],
            waits=seen["waits"],
            gates=orjson.loads(orjson.dumps(seen["gates"])),
            origin=self._replicas.origin("", "", ""),
        )
        if len(encode(message)) > MOST_BYTES:
            message = replace(message, gates=[], waits=message.waits[: MOST_BYTES // 8])
        last = self._replicas.asides.judged(entry.name)
        if last is None or replace(last, origin=message.origin) != message:
            self._next_s[entry.name] = now_s + TELL_S
            self._replicas.tell(message)

    def waits(self, entry: Entry) -> str:
        """Return what a follower's ramp waits for."""
        heard = self._heard(entry)
        if refusal := self._replicas.refusal():
            return refusal
        if heard is None or not self._lives(heard):
            return f"{self._replicas.leader or 'nobody'} leads"
        return heard.waits

    def shown(self, entry: Entry) -> Mapping[str, Any]:
        """Return what the status shows of a ramp: its gates as this replica knows them."""
        seen = told(entry)
        heard = None if self._replicas.leads else self._heard(entry)
        if heard is None:
            return seen
        return seen | {
            "outcome": heard.outcome or None,
            "pairs": heard.pairs,
            "is_fresh": heard.is_fresh and self._lives(heard),
            "gates": heard.gates,
            "judged_by": heard.origin.instance,
            "judged_ms": heard.origin.at_ms,
        }

    def _heard(self, entry: Entry) -> Judged | None:
        """Return what the leader says of the state that holds; None where it has said nothing."""
        found = self._replicas.asides.judged(entry.name)
        holds = self._replicas.shared.weights.get(entry.name)
        if found is None or holds is None or entry.kept.state.phase not in JUDGED:
            return None
        is_now = (found.term, found.revision) == (self._replicas.shared.term, holds.revision)
        return found if is_now else None

    def _lives(self, heard: Judged) -> bool:
        return self._replicas.is_connected and heard.origin.instance in self._replicas.living()
