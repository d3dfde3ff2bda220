"""The transition table: complete, closed, and the one that the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.ramp.phases import (
    ACTIVE,
    BY_OPERATOR,
    JUDGED,
    TRANSITIONS,
    Event,
    IllegalEventError,
    Phase,
    diagram,
    next_phase,
)

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_phase_is_in_the_table_and_can_be_reached() -> None:
    """None is forgotten."""
    assert set(TRANSITIONS) == set(Phase)
    reached = {target for events in TRANSITIONS.values() for target in events.values()}
    assert reached | {Phase.IDLE} == set(Phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_an_event_that_the_table_has_not_raises(phase: Phase, event: Event) -> None:
    """And says what the phase takes."""
    if event in TRANSITIONS[phase]:
        assert next_phase(phase, event) is TRANSITIONS[phase][event]
        return
    with pytest.raises(IllegalEventError, match=f"{phase} takes no {event}; it takes: "):
        next_phase(phase, event)


def test_rolled_back_is_left_by_an_operators_word_alone() -> None:
    """By a start, into the shadow, where nobody is served."""
    assert TRANSITIONS[Phase.ROLLED_BACK] == {Event.START: Phase.SHADOW}
    assert Event.START in BY_OPERATOR


def test_only_holding_steps_up() -> None:
    """So there is one place to look at for what may raise a weight."""
    assert [p for p, events in TRANSITIONS.items() if Event.ADVANCE in events] == [Phase.HOLDING]


def test_whoever_is_judged_can_be_halted_ejected_and_aborted_and_everything_active_paused() -> None:
    """The gates are live in every phase, waiting included."""
    for phase in JUDGED:
        assert TRANSITIONS[phase][Event.HALT] is Phase.ROLLED_BACK
        assert TRANSITIONS[phase][Event.EJECT] is Phase.ROLLED_BACK
        assert TRANSITIONS[phase][Event.ABORT] is Phase.ROLLED_BACK
    for phase in ACTIVE - {Phase.PAUSED}:
        assert TRANSITIONS[phase][Event.PAUSE] is Phase.PAUSED


def test_the_readmes_diagram_is_the_table() -> None:
    """Paste `python -c 'from proxy.ramp.phases import diagram; print(diagram())'` when it is not."""
    found = re.search(r"```mermaid\n(.*?)\n```", README, re.DOTALL)
    assert found
    assert found[1] == diagram()
