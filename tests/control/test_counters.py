"""Sums of counters, looked up instead of searched for."""

from __future__ import annotations

from hypothesis import given, strategies as st

from proxy.control.counters import Counters

NAMES = st.sampled_from(["a", "b"])
KEYS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


@given(found=st.dictionaries(KEYS, st.integers(0, 3)), key=KEYS)
def test_sums_are_those_of_a_search(
    found: dict[tuple[str, ...], int], key: tuple[str, ...]
) -> None:
    """Over every label that was left out; by the last one where it was."""
    counters = Counters(found)
    under = {each: n for each, n in found.items() if each[: len(key)] == key}
    assert counters.sum(*key) == sum(under.values())
    by_last: dict[str, int] = {}
    for each, count in under.items():
        if len(each) > len(key) and count:
            by_last[each[-1]] = by_last.get(each[-1], 0) + count
    assert counters.by_last(*key) == by_last
    assert dict(counters) == found
