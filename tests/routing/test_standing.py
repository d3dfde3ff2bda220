"""The standing of an endpoint: its table, its times, and that it always comes back."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, strategies as st

from proxy.config.resolved import Ejection, HealthCheck
from proxy.routing.standing import FIRST_PART, TRANSITIONS, Event, Standing, State

EJECTION = Ejection(failures=3, first_s=10.0, longest_s=25.0, max_share_bp=5_000, slow_start_s=4.0)
HEALTH = HealthCheck("/ready", interval_s=1.0, timeout_s=1.0, healthy_after=2, unhealthy_after=3)


def fail(standing: Standing, times: int, now_s: float, *, may_eject: bool = True) -> None:
    """Let so many calls fail."""
    for _ in range(times):
        standing.call_failed(now_s, may_eject=may_eject)


def test_calls_that_fail_in_a_row_eject_for_a_while() -> None:
    """Not before the limit, and not for ever."""
    standing = Standing(EJECTION, None)
    fail(standing, 2, 0.0)
    assert standing.is_serving
    fail(standing, 1, 0.0)
    assert standing.state is State.EJECTED
    standing.look(9.9)
    assert standing.state is State.EJECTED
    standing.look(10.0)
    assert standing.is_serving


def test_each_ejection_is_longer_up_to_a_bound() -> None:
    """10 s, 20 s, then 25 s; one that stayed well for as long starts smaller again."""
    standing = Standing(EJECTION, None)
    now_s, times_s = 0.0, []
    for _ in range(4):
        fail(standing, 3, now_s)
        began_s = now_s
        while not standing.is_serving:
            now_s += 0.5
            standing.look(now_s)
        times_s.append(now_s - began_s)
    assert times_s == [10.0, 20.0, 25.0, 25.0]
    for _ in range(2_000):
        now_s += 0.5
        standing.look(now_s)
    fail(standing, 3, now_s)
    standing.look(now_s + 10.0)
    assert standing.is_serving


def test_a_return_is_slow() -> None:
    """A tenth of the calls at first, all of them after `slow_start_s`."""
    standing = Standing(EJECTION, None)
    fail(standing, 3, 0.0)
    parts = []
    for now_s in (10.0, 11.0, 12.0, 14.0):
        standing.look(now_s)
        parts.append(standing.part)
    assert parts == [FIRST_PART, 0.25, 0.5, 1.0]


def test_one_that_may_not_be_ejected_stays() -> None:
    """Too many others are out already, or failures are not to count at all."""
    standing = Standing(EJECTION, None)
    fail(standing, 100, 0.0, may_eject=False)
    assert standing.is_serving
    never = Standing(Ejection(failures=0), None)
    fail(never, 100, 0.0)
    assert never.is_serving


def test_checks_take_it_out_and_bring_it_back() -> None:
    """Three in a row, and two in a row; one in between begins the count again."""
    standing = Standing(EJECTION, HEALTH)

    def check(*results: bool) -> State:
        for result in results:
            standing.check_ended(0.0, has_passed=result)
        return standing.state

    assert check(False, False, True, False, False) is State.SERVING
    assert check(False) is State.DOWN
    assert check(True, False, True) is State.DOWN
    assert check(True) is State.SERVING


def test_a_passed_check_does_not_end_an_ejection() -> None:
    """A model may answer its health check and still fail every call."""
    standing = Standing(EJECTION, HEALTH)
    fail(standing, 3, 0.0)
    for _ in range(5):
        standing.check_ended(0.0, has_passed=True)
    assert standing.state is State.EJECTED


@pytest.mark.parametrize(("state", "event"), sorted(product(State, Event), key=str))
def test_an_event_outside_the_table_raises_and_changes_nothing(state: State, event: Event) -> None:
    """The table is the whole of it."""
    standing = Standing(EJECTION, HEALTH)
    standing.state = state
    if (state, event) in TRANSITIONS:
        standing._apply(event, 1.0)
        assert standing.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(KeyError):
            standing._apply(event, 1.0)
        assert standing.state is state


@given(st.lists(st.tuples(st.sampled_from(["fail", "pass", "refuse", "wait"]), st.floats(0, 30))))
def test_whatever_happened_it_serves_again_once_all_is_well(
    events: list[tuple[str, float]],
) -> None:
    """Nothing is left out for ever, and its part is always one that can be divided by."""
    standing = Standing(EJECTION, HEALTH)
    now_s = 0.0
    for event, wait_s in events:
        now_s += wait_s
        if event == "fail":
            standing.call_failed(now_s, may_eject=True)
        elif event != "wait":
            standing.check_ended(now_s, has_passed=event == "pass")
        standing.look(now_s)
        assert FIRST_PART <= standing.part <= 1.0
    for _ in range(100):
        now_s += 1.0
        standing.check_ended(now_s, has_passed=True)
        standing.look(now_s)
    assert standing.is_serving
    assert standing.part == 1.0
