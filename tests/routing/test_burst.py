"""When bad calls are a burst: exactly as declared, whatever the order of calls and the times."""

from __future__ import annotations

import random
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from proxy.config.resolved import FULL_BP, CanaryGuard
from proxy.routing.burst import Burst, Found

LIMITS = CanaryGuard(failures=3, within_s=1.0, share_bp=5_000)
#: A call is good, failed or slow, and comes so long after the one before.
CALLS = st.lists(
    st.tuples(st.sampled_from(["good", "failed", "slow"]), st.sampled_from([0.0, 0.2, 0.6, 5.0])),
    max_size=60,
)


def _expected(calls: list[tuple[str, float]], limits: CanaryGuard) -> Found | None:
    """Say by the book, with all calls at hand, whether the last one makes a burst."""
    bad = [number for number, (what, _) in enumerate(calls) if what in ("failed", "slow")]
    if not limits.failures or len(bad) < limits.failures or bad[-1] != len(calls) - 1:
        return None
    chosen = bad[-limits.failures :]
    count, span_s = len(calls) - chosen[0], calls[-1][1] - calls[chosen[0]][1]
    is_dense = span_s <= limits.within_s and len(chosen) * FULL_BP >= limits.share_bp * count
    if count != len(chosen) and not is_dense:
        return None
    slow = sum(calls[number][0] == "slow" for number in chosen)
    return Found(len(chosen) - slow, slow, count, span_s)


@given(
    CALLS,
    st.integers(0, 6),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([1, 2_000, 5_000, 10_000]),
)
def test_it_finds_a_burst_exactly_when_the_declared_rule_holds(
    calls: list[tuple[str, float]], failures: int, within_s: float, share_bp: int
) -> None:
    """Against the rule written down over the whole history, call by call."""
    limits = CanaryGuard(failures, within_s, share_bp)
    burst, history, now_s = Burst(limits), [], 0.0
    for what, pause_s in calls:
        now_s += pause_s
        history.append((what, now_s))
        if what == "good":
            burst.calls += 1
        else:
            found = burst.bad(now_s, is_slow=what == "slow")
            assert found == _expected(history, limits)
    assert burst.calls == len(calls)


@given(CALLS)
def test_what_is_kept_does_not_grow(calls: list[tuple[str, float]]) -> None:
    """As many bad calls as make a burst, and a number."""
    burst = Burst(LIMITS)
    for what, _ in calls * 20:
        if what == "good":
            burst.calls += 1
        else:
            burst.bad(0.0, is_slow=False)
    assert len(burst._bad) <= LIMITS.failures


@given(CALLS, st.data())
def test_a_forgiven_call_is_as_good_as_a_good_one(
    calls: list[tuple[str, float]], data: st.DataObject
) -> None:
    """Forgiven at once, it makes no burst that a good call would not have made."""
    burst, history, now_s = Burst(LIMITS), [], 0.0
    for what, pause_s in calls:
        now_s += pause_s
        if what == "good":
            burst.calls += 1
            history.append((what, now_s))
            continue
        found = burst.bad(now_s, is_slow=what == "slow")
        if found is None and data.draw(st.booleans()):
            burst.forgive(burst.calls)
            history.append(("good", now_s))
        else:
            history.append((what, now_s))
    # Whoever forgives has forgotten older bad calls that the ring has let go: never more, only fewer.
    last = burst.bad(now_s, is_slow=False)
    if last is not None:
        assert _expected([*history, ("failed", now_s)], LIMITS) == last


def test_failures_in_a_row_are_a_burst_however_slowly_they_come() -> None:
    """A route with one user an hour finds out, too."""
    burst = Burst(LIMITS)
    assert burst.bad(0.0, is_slow=False) is None
    assert burst.bad(3_600.0, is_slow=True) is None
    assert burst.bad(7_200.0, is_slow=False) == Found(2, 1, 3, 7_200.0)


def test_a_good_call_between_them_makes_them_none_unless_they_come_fast() -> None:
    """Then they must be a share of what there was."""
    for pause_s, is_burst in ((0.4, True), (0.6, False)):
        burst = Burst(LIMITS)
        burst.bad(0.0, is_slow=False)
        burst.calls += 3
        burst.bad(pause_s, is_slow=False)
        assert (burst.bad(2 * pause_s, is_slow=False) is not None) is is_burst
    burst = Burst(LIMITS)
    burst.bad(0.0, is_slow=False)
    burst.calls += 4  # 3 of 7 is less than half
    burst.bad(0.0, is_slow=False)
    assert burst.bad(0.0, is_slow=False) is None


def test_after_a_revive_nothing_of_before_counts() -> None:
    """`clear` forgets."""
    burst = Burst(LIMITS)
    burst.bad(0.0, is_slow=False)
    burst.bad(0.0, is_slow=False)
    burst.clear()
    assert burst.bad(0.0, is_slow=False) is None


def test_it_may_be_off() -> None:
    """`failures: 0`."""
    burst = Burst(replace(LIMITS, failures=0))
    assert all(burst.bad(0.0, is_slow=False) is None for _ in range(100))


@pytest.mark.parametrize(
    ("share_bad", "calls", "is_found"),
    [(1.0, 5, True), (0.8, 40, True), (0.01, 200_000, False), (0.001, 200_000, False)],
)
def test_what_is_broken_is_found_in_some_calls_and_what_fails_now_and_then_is_not(
    share_bad: float, calls: int, *, is_found: bool
) -> None:
    """The defaults at 1,000 calls a second; a fixed seed, so always the same calls."""
    chance, burst = random.Random(7), Burst(CanaryGuard())
    found = False
    for number in range(calls):
        if chance.random() < share_bad:
            found = burst.bad(number / 1_000, is_slow=False) is not None or found
        else:
            burst.calls += 1
    assert found is is_found
