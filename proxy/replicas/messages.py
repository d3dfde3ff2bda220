"""What replicas tell each other through the topic of states, and its form there. Pure.

The topic has one partition, so all replicas read the same messages in the same order; it is compacted,
so of each key the latest message stays. A key begins with the name of the group; what follows:

| key | who writes it | what it says |
| --- | --- | --- |
| `kill/SCOPE` | whoever kills or revives | the killed parts of a scope |
| `weight/ROUTE/CANDIDATE` | an operator's order, or the leader's step | the weight, and where the ramp is |
| `lead` | who has got the lead | its term |
| `beat/INSTANCE` | each replica, all the time | that it lives, and with which config |
| `evidence/ROUTE/CANDIDATE/INSTANCE` | each replica, while a ramp is judged | what its recorders counted |

Beside these there are asides (`proxy.replicas.asides`). A message that cannot be read is no message: it
changes nothing, and whoever reads it counts it. One of a kind that is not known is of a later Understudy,
which may tell more within this version: it is counted apart, and is no trouble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

#: The end of the topic's name.
STATE_TOPIC: Final = "state.v1"
#: Of the messages; another one is of an Understudy that this one does not know.
VERSION: Final = 1
_EVERY_PART: Final = 7
_FULL_BP: Final = 10_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message comes from.

    Attributes:
        instance: the replica's name.
        life: of its control process; another one after each start.
        at_ms: its wall clock.
        who, via, reason: of the order behind it, as in the decisions log.
    """

    instance: str
    life: str
    at_ms: int
    who: str = ""
    via: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """The killed parts of one scope (`*`, `route`, `route/candidate`), as bits of `Part`.

    Attributes:
        adds: they are added to whatever is killed: a kill always holds. Else they replace it: a
            revive, which holds only on sight of what is killed (by its revision).
    """

    scope: str
    parts: int
    revision: int
    adds: bool
    origin: Origin

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"kill/{self.scope}"


@dataclass(frozen=True, slots=True)
class Weight:
    """The weight of a candidate and the state of its ramp, which change in one message.

    Attributes:
        step: of the ramp whose weight this is; -1 for any other hand's.
        term: of the leader who decided; 0: an operator did.
        event: what happened to the ramp, such as `advance`; empty for a weight set by hand.
        ramp: state and window of the ramp as JSON values; None where the route has none.
        evidence: the verdict behind it.
        settles: it is what holds already, written once more.
    """

    route: str
    candidate: str
    weight_bp: int
    step: int
    revision: int
    term: int
    origin: Origin
    event: str = ""
    ramp: Mapping[str, Any] | None = None
    evidence: Any = None
    settles: bool = False

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route}/{self.candidate}"

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"weight/{self.name}"


@dataclass(frozen=True, slots=True)
class Lead:
    """Who leads since this message; its revision is the term, and each is higher than the last."""

    revision: int
    origin: Origin

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return "lead"


@dataclass(frozen=True, slots=True)
class Beat:
    """A replica lives; `number` counts the beats of a life."""

    number: int
    config_version: str
    origin: Origin

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"beat/{self.origin.instance}"


@dataclass(frozen=True, slots=True)
class Counted:
    """What the recorders of one replica have counted for a candidate; `proxy.ramp.window.Published`.

    Attributes:
        parts: as JSON values.
    """

    route: str
    candidate: str
    config_version: str
    caught_up_ms: int | None
    problem: str
    parts: list[Any]
    origin: Origin

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route}/{self.candidate}"

    @property
    def key(self) -> str:
        """The key behind the group's name."""
        return f"evidence/{self.name}/{self.origin.instance}"


Message: TypeAlias = Kill | Weight | Lead | Beat | Counted

_KINDS: Final[Mapping[str, type[Message]]] = {
    "kill": Kill, "weight": Weight, "lead": Lead, "beat": Beat, "evidence": Counted,
}  # fmt: skip
#: The first words of keys.
KEY_WORDS: Final = frozenset(_KINDS)
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}
_TEXTS: Final = frozenset(
    {"scope", "route", "candidate", "event", "config_version", "problem", "instance", "life",
     "who", "via", "reason"}
)  # fmt: skip
_NUMBERS: Final = frozenset(
    {"parts", "revision", "weight_bp", "step", "term", "number", "caught_up_ms", "at_ms"}
)


def encode(message: Message) -> bytes:
    """Return a message as JSON."""
    return as_json(_NAMES[type(message)], message)


def as_json(kind: str, message: Any) -> bytes:
    """Return a message of a kind as JSON: what it says, its kind and the version."""
    fields = orjson.loads(orjson.dumps(message))
    return orjson.dumps({"v": VERSION, "kind": kind, **fields})


def from_json(
    data: bytes,
    kinds: Mapping[str, Callable[..., Any]],
    checked: Callable[[dict[str, Any]], dict[str, Any]],
) -> Any:
    """Return the message that `as_json` wrote.

    Args:
        data: as it was in the topic.
        kinds: the classes of messages by their kind; each has an `origin`.
        checked: returns the fields of a message or an origin; raises TypeError for one of a wrong type.

    Raises:
        ValueError: it is none of these kinds that this version understands.
    """
    try:
        said = orjson.loads(data)
        if said.pop("v") != VERSION:
            raise ValueError("a message of another version of Understudy")  # noqa: TRY301 - told as the rest
        kind = kinds[said.pop("kind")]
        origin = Origin(**checked(said.pop("origin")))
        return kind(**checked(said), origin=origin)
    except (LookupError, TypeError, AttributeError, ValueError) as exc:
        raise ValueError(f"no message of a replica: {exc!r}") from exc


def decode(data: bytes) -> Message:
    """Return the message that `encode` wrote.

    Raises:
        ValueError: it is none that this version understands.
    """
    message: Message = from_json(data, _KINDS, _checked)
    if isinstance(message, Kill) and not 0 <= message.parts <= _EVERY_PART:
        raise ValueError(f"no parts: {message.parts}")
    if isinstance(message, Weight) and not 0 <= message.weight_bp <= _FULL_BP:
        raise ValueError(f"no weight: {message.weight_bp}")
    return message


def whole_key(group: str, message: Message) -> bytes:
    """Return the key of a message in the topic."""
    return f"{group}/{message.key}".encode()


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a message or an origin.

    Raises:
        TypeError: one of them is of another type than it must be.
    """
    for name, value in fields.items():
        if name in _TEXTS and type(value) is not str:
            raise TypeError(f"{name} is no text")
        if name == "parts" and type(value) is list:
            continue
        if (
            name in _NUMBERS
            and type(value) is not int
            and not (name == "caught_up_ms" and value is None)
        ):
            raise TypeError(f"{name} is no number")
    return fields
