"""What all replicas have agreed on: the messages of the topic, folded in their order. Pure.

The order of the topic decides, so that every replica comes to the same, whoever wrote what and when:

- A weight, and the step of a ramp with it, holds if its revision is higher than the one before. It is
  written on sight of that, so of two that were written on the same sight the first holds, and the
  other changes nothing: no step is taken twice, and none is decided on a state that is over.
- What a leader decided under a term that is over is *refused*, and so is a weight that does not fit
  beside those that the route's other candidates have: of two that are more than 100% together the
  first holds. The weight that was before then stands under the revision of the refused one, so that
  everybody, its author included, goes back to it.
- A kill always holds: its parts are added to what is killed. A revive holds if its revision is
  higher, so never against a kill that it has not seen.
- A lead holds if its term is higher.

Compaction keeps the latest message of a key, though it may be one that did not hold, or that was
written on an older sight; what it leaves out made others fit, or not. Such a key, and with a weight
those of the whole route, are `unsettled`: the leader writes what holds once more, and that holds
without being asked whether it fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Final

from proxy.replicas.messages import Beat, Counted, Kill, Lead, Message, Origin, Weight

#: A replica without a word for so long is gone; what it counted is forgotten.
FORGET_MS: Final = 24 * 3600 * 1000
_FULL_BP: Final = 10_000


class Shared:
    """The fold.

    Attributes:
        kills: by scope; those that were revived, too.
        weights: by `route/candidate`.
        beats: the last one of each replica, by its name.
        counted: by `route/candidate` and the replica's name.
        lead: the latest; None before the first.
    """

    def __init__(self) -> None:
        self.kills: dict[str, Kill] = {}
        self.weights: dict[str, Weight] = {}
        self.beats: dict[str, Beat] = {}
        self.counted: dict[str, dict[str, Counted]] = {}
        self.lead: Lead | None = None
        self._unsettled: set[str] = set()

    def take(self, message: Message) -> bool:
        """Take the next message of the topic; return whether it holds as it is."""
        if isinstance(message, Beat):
            self.beats[message.origin.instance] = message
            return True
        if isinstance(message, Counted):
            self.counted.setdefault(message.name, {})[message.origin.instance] = message
            return True
        if isinstance(message, Kill):
            holds = self._take_kill(message)
        elif isinstance(message, Weight):
            holds = self._take_weight(message)
        else:
            holds = message.revision > self.term
            self.lead = message if holds else self.lead
        self._note(message, holds=holds)
        return holds

    def forget(self, key: str) -> None:
        """Take a tombstone: a replica that is gone."""
        kind, _, rest = key.partition("/")
        if kind == "beat":
            self.beats.pop(rest, None)
        elif kind == "evidence":
            name, _, instance = rest.rpartition("/")
            self.counted.get(name, {}).pop(instance, None)

    def lose_log(self) -> None:
        """Take note that the topic was made anew: all that holds must be written once more."""
        self._unsettled = {each.key for each in self._holding()}

    @property
    def term(self) -> int:
        """The term of the latest lead; 0 before the first."""
        return self.lead.revision if self.lead is not None else 0

    @property
    def leader(self) -> str:
        """The replica that got the lead last; empty before the first."""
        return self.lead.origin.instance if self.lead is not None else ""

    def unsettled(self, origin: Origin) -> list[Message]:
        """Return what the leader should write once more, so that compaction keeps what holds."""
        return [_once_more(each, origin) for each in self._holding() if each.key in self._unsettled]

    def room_bp(self, name: str) -> int:
        """Return the most that a candidate can have beside the others of its route (basis points)."""
        route, _, _ = name.partition("/")
        return _FULL_BP - sum(
            each.weight_bp
            for other, each in self.weights.items()
            if each.route == route and other != name
        )

    def orphans(self, names: Collection[str], origin: Origin) -> list[Message]:
        """Return what takes the weight from candidates that are not among `names`.

        For a leader whose config all run: a candidate that is in none of them takes up room no more.
        """
        return [
            _ended(each, origin)
            for name, each in self.weights.items()
            if each.weight_bp and name not in names
        ]

    def gone(self, now_ms: int) -> list[str]:
        """Return the keys of replicas that are gone, to be buried."""
        gone = [name for name, beat in self.beats.items() if now_ms - beat.origin.at_ms > FORGET_MS]
        keys = [f"beat/{name}" for name in gone]
        keys += [
            each.key
            for of_name in self.counted.values()
            for each in of_name.values()
            if now_ms - each.origin.at_ms > FORGET_MS and each.origin.instance not in self.beats
        ]
        return keys

    def killed_parts(self, scope: str) -> int:
        """Return the killed parts of a scope itself."""
        found = self.kills.get(scope)
        return found.parts if found is not None else 0

    def _take_kill(self, message: Kill) -> bool:
        before = self.kills.get(message.scope)
        if before is None or (not message.adds and message.revision > before.revision):
            self.kills[message.scope] = message
            return True
        if not message.adds:
            return False
        parts = before.parts | message.parts
        revision = max(before.revision + 1, message.revision)
        self.kills[message.scope] = replace(message, parts=parts, revision=revision)
        return (parts, revision) == (message.parts, message.revision)

    def _take_weight(self, message: Weight) -> bool:
        before = self.weights.get(message.name)
        if before is not None and message.revision <= before.revision:
            return False
        why = self._why_not(message)
        self.weights[message.name] = _refused(message, before, why) if why else message
        return not why

    def _why_not(self, message: Weight) -> str:
        """Return why a weight on the latest sight is refused all the same; empty when it is not."""
        if 0 < message.term < self.term:
            return f"decided under the lead before {self.leader}'s"
        room_bp = self.room_bp(message.name)
        if message.weight_bp > room_bp and not message.settles:
            return f"{message.weight_bp / 100:g}%, and the route's other candidates leave {room_bp / 100:g}%"
        return ""

    def _note(self, message: Kill | Weight | Lead, *, holds: bool) -> None:
        """Note which keys a message leaves unsettled: with one weight all of its route's."""
        if not isinstance(message, Weight):
            (self._unsettled.discard if holds else self._unsettled.add)(message.key)
            return
        of_route = {each.key for each in self.weights.values() if each.route == message.route}
        if not holds or (not message.settles and self._unsettled & of_route):
            self._unsettled |= of_route
        elif message.settles:
            self._unsettled.discard(message.key)

    def _holding(self) -> Iterator[Kill | Weight | Lead]:
        yield from self.kills.values()
        yield from self.weights.values()
        if self.lead is not None:
            yield self.lead


def _refused(message: Weight, before: Weight | None, why: str) -> Weight:
    """Return what stands where a weight is refused: the one before, in the refused one's place."""
    stands = before or replace(message, weight_bp=0, step=-1, ramp=None)
    said = f"refused: {why}; wanted for: {message.origin.reason}"
    return _quiet(
        stands, message.revision, origin=replace(message.origin, reason=said), settles=False
    )


def _quiet(message: Weight, revision: int, **changes: Any) -> Weight:
    """Return the same weight under another revision; nothing happens to the ramp by it."""
    return replace(message, revision=revision, term=0, event="", evidence=None, **changes)


def _ended(message: Weight, origin: Origin) -> Weight:
    """Return the message that takes a candidate's weight away, and its ramp with it."""
    return Weight(message.route, message.candidate, 0, -1, message.revision + 1, 0, origin)


def _once_more(message: Kill | Weight | Lead, origin: Origin) -> Message:
    """Return what holds with the next revision; its words are kept, and nothing happens by it."""
    match message:
        case Kill():
            return replace(message, revision=message.revision + 1, adds=False)
        case Weight():
            return _quiet(message, message.revision + 1, settles=True)
        case Lead():
            return Lead(message.revision + 1, origin)
