"""What replicas tell each other beside what they agree on: it moves no weight and kills nothing. Pure.

| key | who writes it | what it says |
| --- | --- | --- |
| `keys/ROUTE/CANDIDATE/WEIGHT/INSTANCE` | each replica, while a ramp is judged | the split keys it saw at a weight |
| `judged/ROUTE/CANDIDATE` | the leader, when it has changed | what the gates of a ramp say |
| `told/ROUTE/CANDIDATE` | who has told a notice of a ramp | which were told |

Each is the last word of its key, whatever came before. An Understudy from before there were asides
counts them as messages that it cannot read, and does without.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from proxy.replicas.messages import Beat, Origin, as_json, from_json
from proxy.replicas.shared import FORGET_MS


@dataclass(frozen=True, slots=True)
class Tossed:
    """The split keys of one weight that the recorders of one replica have seen.

    Attributes:
        hashed_by: names the secret that the keys are hashed by; only those of the same one are comparable.
        keys: one element of `proxy.comparison.split_keys.SplitKeys.as_notes`, `packed`.
    """

    route: str
    candidate: str
    weight_bp: int
    config_version: str
    hashed_by: str
    keys: Mapping[str, Any]
    origin: Origin

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route}/{self.candidate}"

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"keys/{self.name}/{self.weight_bp}/{self.origin.instance}"


@dataclass(frozen=True, slots=True)
class NoticesTold:
    """The notices of one ramp that the `notify` webhook was told lately, or that were given up.

    Attributes:
        ids: of the notices, the oldest first.
    """

    route: str
    candidate: str
    ids: list[str]
    origin: Origin

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route}/{self.candidate}"

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"told/{self.name}"


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gates of a ramp say, as the status document tells it.

    Attributes:
        term: of the leader who says so.
        revision: of the weight, and the ramp's state, that was judged.
        outcome: of the worst key; empty without one to judge.
        waits: what the ramp waits for.
        gates: as JSON values.
    """

    route: str
    candidate: str
    term: int
    revision: int
    outcome: str
    pairs: int
    is_fresh: bool
    waits: str
    gates: list[Any]
    origin: Origin

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route}/{self.candidate}"

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"judged/{self.name}"


Aside: TypeAlias = Tossed | NoticesTold | Judged

_KINDS: Final[Mapping[str, type[Aside]]] = {"keys": Tossed, "told": NoticesTold, "judged": Judged}
_SIDES: Final = ("hits", "misses")
#: Of the hash of a split key, as far as it is looked at.
_UNIT_BYTES: Final = 8
_WORDS: Final = {kind: word for word, kind in _KINDS.items()}
_TYPES: Final[Mapping[str, type]] = {
    "route": str, "candidate": str, "weight_bp": int, "config_version": str, "hashed_by": str,
    "keys": dict, "ids": list, "term": int, "revision": int,
    "outcome": str, "pairs": int, "is_fresh": bool, "waits": str, "gates": list,
    "instance": str, "life": str, "at_ms": int, "who": str, "via": str, "reason": str,
}  # fmt: skip


def encode(message: Aside) -> bytes:
    """Return a message as JSON."""
    return as_json(_WORDS[type(message)], message)


def decode(data: bytes) -> Aside:
    """Return the message that `encode` wrote.

    Raises:
        ValueError: it is none that this version understands.
    """
    message: Aside = from_json(data, _KINDS, _checked)
    return message


class Asides:
    """The last word on each thing."""

    def __init__(self) -> None:
        self._latest: dict[str, Aside] = {}

    def takes(self, key: str) -> bool:
        """Return whether messages of this key are asides."""
        return key.partition("/")[0] in _KINDS

    def take(self, message: Aside) -> None:
        """Take the next message."""
        self._latest[message.key] = message

    def forget(self, key: str) -> None:
        """Take a tombstone."""
        self._latest.pop(key, None)

    def lose_log(self) -> None:
        """Take note that the topic was made anew: each replica tells its split keys once more."""
        self._latest = {
            key: each for key, each in self._latest.items() if not isinstance(each, Tossed)
        }

    def tossed(self, name: str) -> list[Tossed]:
        """Return the split keys of `route/candidate` that any replica has told."""
        found = self._latest.values()
        return [each for each in found if isinstance(each, Tossed) and each.name == name]

    def notices_told(self, name: str) -> list[str]:
        """Return the ids of the notices of a ramp that were told lately."""
        found = self._latest.get(f"told/{name}")
        return list(found.ids) if isinstance(found, NoticesTold) else []

    def judged(self, name: str) -> Judged | None:
        """Return what the gates of a ramp said last."""
        found = self._latest.get(f"judged/{name}")
        return found if isinstance(found, Judged) else None

    def gone(self, now_ms: int, living: Mapping[str, Beat], config_version: str) -> list[str]:
        """Return the keys of split keys that nobody counts any more, to be buried.

        They are those of a config that their replica does not run any more; and where it does not live, of
        another config than `config_version`, or of a day ago.
        """
        found = []
        for key, each in self._latest.items():
            if not isinstance(each, Tossed):
                continue
            beat = living.get(each.origin.instance)
            runs = config_version if beat is None else beat.config_version
            is_old = beat is None and now_ms - each.origin.at_ms > FORGET_MS
            if is_old or each.config_version != runs:
                found.append(key)
        return found


def packed(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return split keys as they are told: 11 characters each, sorted, so that the same are equal."""
    return {**notes, **{side: _text_of(notes[side]) for side in _SIDES}}


def unpacked(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the split keys that `packed` made.

    Raises:
        LookupError, TypeError, ValueError: they are none.
    """
    return {**keys, **{side: _units_of(keys[side]) for side in _SIDES}}


def _text_of(units: Iterable[int]) -> str:
    found = b"".join(unit.to_bytes(_UNIT_BYTES, "big") for unit in sorted(units))
    return base64.b64encode(found).decode()


def _units_of(text: str) -> list[int]:
    data = base64.b64decode(text, validate=True)
    if len(data) % _UNIT_BYTES:
        raise ValueError("a hash is cut")
    starts = range(0, len(data), _UNIT_BYTES)
    return [int.from_bytes(data[start : start + _UNIT_BYTES], "big") for start in starts]


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a message or an origin.

    Raises:
        LookupError, TypeError: one of them is unknown, or of another type than it must be.
    """
    for name, value in fields.items():
        if type(value) is not _TYPES[name]:
            raise TypeError(f"{name} is none")
    return fields
