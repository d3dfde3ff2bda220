"""The phases of a ramp and what leads from one to another: one table, and nothing beside it.

A ramp begins in the shadow: the candidate is mirrored and serves nobody. When its gates are passed it
is *holding*, which lasts as long as a word is missing (an operator's, a webhook's), and then steps up.
So every rise of the weight is an `advance` out of `holding`, and no other event can be one. Whatever
is worse than a pass leads down to `rolled_back`, which only an operator's `start` leaves.

An event that the table does not have raises and changes nothing. The README's diagram is drawn from
the table (`diagram`). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Phase(StrEnum):
    """Where a ramp is."""

    IDLE = "idle"
    """Never started: only operators move the weight."""
    SHADOW = "shadow"
    """Started; the candidate is mirrored only, and judged before it gets its first user."""
    STEPPING = "stepping"
    """The weight is a step's, and the step's evidence is being gathered."""
    HOLDING = "holding"
    """The gates are passed; it waits for whatever else is asked, and the gates stay live."""
    PROMOTED = "promoted"
    """Behind the last step. The gates still roll it back."""
    PAUSED = "paused"
    """Somebody has taken the weight into their own hands. The gates still roll it back."""
    ROLLED_BACK = "rolled_back"
    """The weight is 0 until an operator starts again."""


class Event(StrEnum):
    """What happens to a ramp."""

    START = "start"
    PASS = "pass"  # noqa: S105 - no password
    APPROVE = "approve"
    ADVANCE = "advance"
    FINISH = "finish"
    HALT = "halt"
    EJECT = "eject"
    EXPIRE = "expire"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    ABORT = "abort"


#: Events that only an operator causes. `restart` is a `resume` below the first step.
BY_OPERATOR: Final = frozenset(
    {Event.START, Event.APPROVE, Event.RESUME, Event.RESTART, Event.ABORT}
)
#: Phases in which a ramp is under way.
ACTIVE: Final = frozenset({Phase.SHADOW, Phase.STEPPING, Phase.HOLDING, Phase.PAUSED})
#: Phases in which the gates are looked at.
JUDGED: Final = ACTIVE | {Phase.PROMOTED}

_DOWN: Final = {
    Event.HALT: Phase.ROLLED_BACK,
    Event.EJECT: Phase.ROLLED_BACK,
    Event.ABORT: Phase.ROLLED_BACK,
}
_ON_TIME: Final = {**_DOWN, Event.EXPIRE: Phase.ROLLED_BACK, Event.PAUSE: Phase.PAUSED}

TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = MappingProxyType(
    {
        Phase.IDLE: {Event.START: Phase.SHADOW},
        Phase.SHADOW: {Event.PASS: Phase.HOLDING, **_ON_TIME},
        Phase.HOLDING: {
            Event.APPROVE: Phase.HOLDING,
            Event.ADVANCE: Phase.STEPPING,
            Event.FINISH: Phase.PROMOTED,
            **_ON_TIME,
        },
        Phase.STEPPING: {Event.PASS: Phase.HOLDING, **_ON_TIME},
        Phase.PROMOTED: {**_DOWN, Event.PAUSE: Phase.PAUSED},
        Phase.PAUSED: {Event.RESUME: Phase.STEPPING, Event.RESTART: Phase.SHADOW, **_DOWN},
        Phase.ROLLED_BACK: {Event.START: Phase.SHADOW},
    }
)


class IllegalEventError(Exception):
    """An event that a ramp in this phase does not take; its text says which it takes."""


def next_phase(phase: Phase, event: Event) -> Phase:
    """Return the phase that `event` leads to.

    Raises:
        IllegalEventError: the table has no such event for this phase.
    """
    events = TRANSITIONS[phase]
    if event not in events:
        known = ", ".join(events)
        raise IllegalEventError(f"a ramp that is {phase} takes no {event}; it takes: {known}")
    return events[event]


def diagram() -> str:
    """Return the table as the lines of a Mermaid state diagram; operators' words are in capitals."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.IDLE}"]
    for phase, events in TRANSITIONS.items():
        targets: dict[Phase, list[str]] = {}
        for event, target in events.items():
            word = event.upper() if event in BY_OPERATOR else str(event)
            targets.setdefault(target, []).append(word)
        lines += [f"    {phase} --> {to}: {', '.join(words)}" for to, words in targets.items()]
    return "\n".join(lines)
