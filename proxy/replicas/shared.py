"""What all replicas have agreed on: the messages of the topic, folded in their order. Pure.

The order of the topic decides, so that every replica comes to the same, whoever wrote what and when:

- A weight, and the step of a ramp with it, holds if its revision is higher than the one before. It is
  written on sight of that, so of two that were written on the same sight the first holds, and the
  other changes nothing: no step is taken twice, and none is decided on a state that is over. What a
  leader decided under a term that is over does not hold either.
- A kill always holds: its parts are added to what is killed. A revive holds if its revision is
  higher, so never against a kill that it has not seen.
- A lead holds if its term is higher.

Compaction keeps the latest message of a key, though it may be one that did not hold, or that was
written on an older sight. Those keys are `unsettled`; the leader writes what holds once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from proxy.replicas.messages import Beat, Counted, Kill, Lead, Message, Origin, Weight

#: A replica without a word for so long is gone; what it counted is forgotten.
FORGET_MS: Final = 24 * 3600 * 1000


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
        if holds:
            self._unsettled.discard(message.key)
        else:
            self._unsettled.add(message.key)
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

    def unsettled(self, origin: Origin) -> list[Message]:
        """Return what the leader should write once more, so that compaction keeps what holds."""
        return [_once_more(each, origin) for each in self._holding() if each.key in self._unsettled]

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
        is_over = 0 < message.term < self.term
        if is_over or (before is not None and message.revision <= before.revision):
            return False
        self.weights[message.name] = message
        return True

    def _holding(self) -> Iterator[Kill | Weight | Lead]:
        yield from self.kills.values()
        yield from self.weights.values()
        if self.lead is not None:
            yield self.lead


def _once_more(message: Kill | Weight | Lead, origin: Origin) -> Message:
    """Return what holds with the next revision; its words are kept, and nothing happens by it."""
    match message:
        case Kill():
            return replace(message, revision=message.revision + 1, adds=False)
        case Weight():
            return replace(message, revision=message.revision + 1, term=0, event="", evidence=None)
        case Lead():
            return Lead(message.revision + 1, origin)
