"""When a worker makes no copies: what counts as overload, how soon, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, strategies as st

from proxy.routing.overload import FIRST_HOLD_S, LEAST_QUEUE, LONGEST_HOLD_S, ROOM, Overload

LIMIT_S = 0.005
TICK_S = 0.05
SOON_S = 0.001
BUSY_PER_S = 20_000.0


class Watch:
    """A worker's looks at its loop, as `proxy.dataplane.shedding` times them."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.now_s = self.used_s = 0.0
        self.overload = Overload(limit_s, 0.0)
        self._is_soon = False

    def look(self, late_s: float, rate: float, use: float = 0.0) -> bool:
        """Look after the time that was planned and `late_s`.

        Args:
            late_s: how late it is.
            rate: requests per second.
            use: share of its core that the worker has used.
        """
        span_s = (SOON_S if self._is_soon else TICK_S) + late_s
        self.now_s += span_s
        self.used_s += use * span_s
        came = round(rate * span_s)
        self._is_soon = self.overload.look(late_s, came, self.used_s, self.now_s)
        return self.overload.is_shedding

    def until(self, late_s: float, rate: float, use: float = 0.0, *, is_shedding: bool) -> float:
        """Return for how long `late_s`, `rate` and `use` last until it is so."""
        since_s = self.now_s
        while self.look(late_s, rate, use) is not is_shedding:
            assert self.now_s - since_s < 100, "never"
        return self.now_s - since_s


looks = st.tuples(st.floats(0, 0.5), st.floats(0, 100_000))


@given(st.lists(looks, max_size=100), st.floats(1.05, 20))
def test_a_queue_is_found_soon_whatever_was_before(
    before: list[tuple[float, float]], times: float
) -> None:
    """Within a tick and some looks, where lag and queue are well above their limits."""
    watch = Watch()
    for late_s, rate in before:
        watch.look(late_s, rate)
    late_s = 2 * times * LIMIT_S
    rate = 4 * LEAST_QUEUE / LIMIT_S
    if not watch.overload.is_shedding:
        assert watch.until(late_s, rate, is_shedding=True) <= TICK_S + 5 * (SOON_S + late_s)


@given(st.lists(st.floats(0, LIMIT_S), max_size=200), st.floats(0, 1e6))
def test_a_loop_in_time_is_never_overloaded(lates: list[float], rate: float) -> None:
    """However many requests come."""
    watch = Watch()
    assert not any(watch.look(late_s, rate) for late_s in lates)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, int(LEAST_QUEUE))), max_size=200))
def test_few_requests_at_a_time_are_mirrored_however_late_the_loop_is(
    turns: list[tuple[float, int]],
) -> None:
    """A slow or shared machine, large bodies, streams: no more come between two looks than wait."""
    overload, now_s = Overload(LIMIT_S, 0.0), 0.0
    for late_s, waiting in turns:
        now_s += SOON_S + late_s
        overload.look(late_s, waiting, now_s, now_s)
        assert not overload.is_shedding


@given(st.floats(0.001, 5), st.floats(0.001, 5), st.integers(0, 20))
def test_one_stall_or_two_in_a_row_do_not_count(first_s: float, second_s: float, calm: int) -> None:
    """Of any length, at any load: the machine stands still now and then, and goes on being busy."""
    watch = Watch()
    for late_s in (*[0.0] * calm, first_s, second_s, *[0.48 * LIMIT_S] * 20):
        assert not watch.look(late_s, BUSY_PER_S)


@given(st.lists(looks, max_size=100))
def test_zero_switches_it_off(seen: list[tuple[float, float]]) -> None:
    """Whatever is seen."""
    watch = Watch(0.0)
    assert not any(watch.look(*each) for each in seen)
    assert watch.overload.statistics().begun == 0


def test_it_ends_when_half_the_limits_have_not_been_reached_for_a_while() -> None:
    """Not a look earlier, and the time counts from the last sign."""
    watch = Watch()
    watch.until(0.02, BUSY_PER_S, is_shedding=True)
    for _ in range(100):  # a forwarded request costs less: above half of the limit is still a sign
        assert watch.look(0.7 * LIMIT_S, 2 * BUSY_PER_S)
    took_s = watch.until(0.0, BUSY_PER_S, is_shedding=False)
    assert FIRST_HOLD_S <= took_s <= FIRST_HOLD_S + 10 * TICK_S


def test_a_long_stall_while_shedding_prolongs_it() -> None:
    """What was late is a sign, as long as it is in the mean."""
    watch = Watch()
    watch.until(0.02, BUSY_PER_S, is_shedding=True)
    for _ in range(3 * int(FIRST_HOLD_S / TICK_S)):
        assert watch.look(0.02, BUSY_PER_S)


@given(st.floats(ROOM + 0.05, 1))
def test_it_lasts_while_the_worker_has_no_room_for_copies(use: float) -> None:
    """Without them the loop may be in time, and would not be with them. Not for ever: see the module."""
    watch = Watch()
    watch.until(0.02, BUSY_PER_S, use, is_shedding=True)
    took_s = watch.until(0.0, BUSY_PER_S, use, is_shedding=False)
    assert LONGEST_HOLD_S <= took_s <= LONGEST_HOLD_S + 10 * TICK_S


@given(st.floats(0, ROOM - 0.05), st.floats(ROOM, 1))
def test_it_ends_soon_once_there_is_room(later: float, before: float) -> None:
    """However long there was none, and whatever copies took before."""
    watch = Watch()
    watch.until(0.02, BUSY_PER_S, 1.0, is_shedding=True)
    for _ in range(100):
        assert watch.look(0.0, BUSY_PER_S, before)
    took_s = watch.until(0.0, BUSY_PER_S, later, is_shedding=False)
    assert took_s <= FIRST_HOLD_S * 4


def test_what_a_thread_used_before_it_was_watched_is_no_use_of_now() -> None:
    """A core is used once at most, whatever the thread's clock says at the first look."""
    watch = Watch()
    watch.until(0.02, BUSY_PER_S, is_shedding=True)
    watch.used_s += 1000
    assert watch.until(0.0, BUSY_PER_S, is_shedding=False) < 2 * FIRST_HOLD_S


def trial(watch: Watch) -> Iterator[float]:
    """Yield how long each pause is where the copies themselves make the overload."""
    while True:
        watch.until(0.02, BUSY_PER_S, is_shedding=True)
        yield watch.until(0.0, BUSY_PER_S, is_shedding=False)


def test_copies_that_make_the_overload_are_tried_ever_more_rarely() -> None:
    """The pauses double up to a bound, beside which the trials hardly count."""
    watch, pauses = Watch(), trial(Watch())
    found = [next(pauses) for _ in range(8)]
    wanted = [min(FIRST_HOLD_S * 2**n, LONGEST_HOLD_S) for n in range(8)]
    assert all(
        hold_s <= pause_s <= hold_s + 10 * TICK_S
        for pause_s, hold_s in zip(found, wanted, strict=True)
    ), found
    assert watch.until(0.02, BUSY_PER_S, is_shedding=True) < 0.01 * LONGEST_HOLD_S


def test_after_a_time_without_overload_the_pauses_are_short_again() -> None:
    """As long a time as the last pause."""
    watch = Watch()
    pauses = trial(watch)
    last_s = [next(pauses) for _ in range(4)][-1]
    assert last_s > 4 * FIRST_HOLD_S
    since_s = watch.now_s
    while watch.now_s - since_s < last_s + 1:
        assert not watch.look(0.0, BUSY_PER_S)
    assert next(pauses) < FIRST_HOLD_S + 10 * TICK_S


def test_a_clock_that_stands_changes_nothing() -> None:
    """Two looks at the same time are one."""
    overload = Overload(LIMIT_S, 1.0)
    overload.look(0.02, 1000, 0.5, 1.1)
    before = overload.statistics()
    assert not overload.look(0.02, 1000, 0.6, 1.1)
    assert overload.statistics() == before
    assert before.queue > 0
    assert before.lag_s > 0
