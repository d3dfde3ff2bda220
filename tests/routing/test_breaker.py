"""The breaker's table, and what it does with copies that end."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.config import resolved
from proxy.routing.breaker import (
    TRANSITIONS,
    Breaker,
    Ending,
    Event,
    State,
    UnknownEventError,
)

LIMITS = resolved.Breaker(failures=3, open_for_s=2.0, max_open_for_s=7.0, probes=2)


def opened(limits: resolved.Breaker = LIMITS, now_s: float = 0.0) -> Breaker:
    """Return a breaker that opened at `now_s`."""
    breaker = Breaker(limits)
    for _ in range(limits.failures):
        breaker.end(breaker.begin(), Ending.FAILED, now_s)
    assert breaker.state is State.OPEN
    return breaker


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_the_table_is_obeyed_and_unknown_events_change_nothing(state: State, event: Event) -> None:
    """In every state, for every event."""
    breaker = Breaker(LIMITS)
    breaker._state = state
    before = breaker.statistics(), breaker.turn
    if (state, event) in TRANSITIONS:
        breaker._move(event)
        assert breaker.state is TRANSITIONS[state, event]
        assert breaker.is_closed is (breaker.state is State.CLOSED)
    else:
        with pytest.raises(UnknownEventError, match=event.name):
            breaker._move(event)
        assert (breaker.statistics(), breaker.turn) == before


@given(st.lists(st.sampled_from(Ending), max_size=40))
def test_it_opens_exactly_at_as_many_failures_in_a_row(endings: list[Ending]) -> None:
    """An answer begins the count anew; what we cancelled ourselves does not count."""
    breaker, run = Breaker(LIMITS), 0
    for ending in endings:
        breaker.end(breaker.begin(), ending, 0.0)
        run = {Ending.FAILED: run + 1, Ending.ANSWERED: 0, Ending.NEITHER: run}[ending]
        if run == LIMITS.failures:
            assert breaker.state is State.OPEN
            return
        assert breaker.state is State.CLOSED
        assert breaker.is_calm is (run == 0)


def test_it_never_opens_with_no_failures_set() -> None:
    """`failures: 0` turns it off."""
    breaker = Breaker(replace(LIMITS, failures=0))
    for _ in range(100):
        breaker.end(breaker.begin(), Ending.FAILED, 0.0)
    assert breaker.is_closed


def test_an_open_one_admits_nothing_until_its_time_is_over_then_the_probes_alone() -> None:
    """Two at once, and no third before they have been answered; then it closes."""
    breaker = opened()
    assert not breaker.admits(1.999)
    turns = []
    for _ in range(2):
        assert breaker.admits(2.0)
        turns.append(breaker.begin())
    assert breaker.state is State.HALF_OPEN
    assert not breaker.admits(100.0)
    breaker.end(turns[0], Ending.ANSWERED, 2.1)
    assert not breaker.admits(2.1)
    breaker.end(turns[1], Ending.ANSWERED, 2.2)
    assert breaker.is_closed
    assert breaker.admits(2.2)


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_limit() -> None:
    """2, 4, 7, 7 seconds; and 2 again once it was closed."""
    breaker, now_s, seen = opened(), 0.0, []
    for _ in range(4):
        open_for_s = breaker.statistics().open_for_s
        seen.append(open_for_s)
        assert not breaker.admits(now_s + open_for_s - 0.01)
        now_s += open_for_s
        assert breaker.admits(now_s)
        breaker.end(breaker.begin(), Ending.FAILED, now_s)
    assert seen == [2.0, 4.0, 7.0, 7.0]
    now_s += 7.0
    for _ in range(2):
        assert breaker.admits(now_s)
        breaker.end(breaker.begin(), Ending.ANSWERED, now_s)
    assert breaker.is_closed
    assert breaker.statistics().open_for_s == 2.0


def test_a_cancelled_probe_gives_its_place_back() -> None:
    """It says nothing, and must not keep the breaker half-open for ever."""
    breaker = opened()
    for _ in range(5):
        assert breaker.admits(2.0)
        breaker.end(breaker.begin(), Ending.NEITHER, 2.0)
    assert breaker.state is State.HALF_OPEN
    assert breaker.statistics().probing == 0


def test_copies_of_an_earlier_turn_move_nothing() -> None:
    """The hundred that time out after it has opened; the one answered while it is half-open."""
    breaker = Breaker(LIMITS)
    turns = [breaker.begin() for _ in range(103)]
    for turn in turns[:100]:
        breaker.end(turn, Ending.FAILED, 0.0)
    assert breaker.admits(2.0)
    for turn in turns[100:]:
        breaker.end(turn, Ending.ANSWERED, 2.0)
    assert breaker.state is State.HALF_OPEN


class Machine(RuleBasedStateMachine):
    """Copies that are sent and end in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(LIMITS)
        self.now_s = 0.0
        self.live: list[int] = []

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    @rule()
    def send(self) -> None:
        """Send a copy if it is admitted."""
        if self.breaker.admits(self.now_s):
            self.live.append(self.breaker.begin())

    @precondition(lambda self: self.live)
    @rule(data=st.data(), ending=st.sampled_from(Ending))
    def end(self, data: st.DataObject, ending: Ending) -> None:
        """End one of those under way."""
        turn = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.breaker.end(turn, ending, self.now_s)

    @invariant()
    def probes_are_bounded(self) -> None:
        """Never more under way than may be, nor fewer than none."""
        now = self.breaker.statistics()
        assert 0 <= now.probing <= LIMITS.probes
        if now.state is not State.CLOSED:
            assert now.probing == sum(turn == self.breaker.turn for turn in self.live)

    @invariant()
    def the_open_time_is_bounded(self) -> None:
        """From the configured one to the configured limit."""
        assert LIMITS.open_for_s <= self.breaker.statistics().open_for_s <= LIMITS.max_open_for_s


TestMachine = Machine.TestCase
