"""The law of the bucket: never more than rate * t + burst, in no window of time."""

from __future__ import annotations

from hypothesis import given, strategies as st

from proxy.routing.rate import Bucket


@given(
    st.floats(0.01, 1000),
    st.lists(st.floats(0, 3), min_size=1, max_size=60),
    st.integers(1, 30),
)
def test_no_window_passes_more_than_its_rate_and_a_burst(
    rate: float, gaps: list[float], eager: int
) -> None:
    """Whenever tokens are asked for, and however eagerly."""
    bucket, now_s, times = Bucket(rate, 0.0), 0.0, []
    for gap in gaps:
        now_s += gap
        times += [now_s for _ in range(eager) if bucket.take(now_s)]
    assert bucket.burst == max(1.0, rate)
    for first in range(len(times)):
        for last in range(first, len(times)):
            window_s = times[last] - times[first]
            assert last - first + 1 <= rate * window_s + bucket.burst + 1e-6
    seen = bucket.statistics()
    assert (seen.taken, seen.taken + seen.refused) == (len(times), eager * len(gaps))


@given(st.floats(0.1, 1000))
def test_whoever_asks_no_faster_than_the_rate_is_never_refused(rate: float) -> None:
    """A cap is no tax."""
    bucket = Bucket(rate, 0.0)
    assert all(bucket.take(number * 1.000001 / rate) for number in range(200))


def test_a_clock_that_stands_or_goes_back_brings_nothing() -> None:
    """What is there may be taken, and no more."""
    bucket = Bucket(2.0, 10.0)
    assert [bucket.take(now_s) for now_s in (10.0, 9.0, 10.0, 8.0)] == [True, True, False, False]
    assert bucket.take(10.5)
