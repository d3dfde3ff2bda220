"""The laws of sharing: nobody waits in vain, and whoever takes part ends up level."""

from __future__ import annotations

from hypothesis import given, strategies as st

from proxy.routing.shares import TOLERANCE, is_level, part_of

LOADS = st.lists(st.integers(0, 300), min_size=1, max_size=8)


def _others(loads: list[int], index: int) -> list[int]:
    return loads[:index] + loads[index + 1 :]


@given(LOADS, st.integers(0, 500))
def test_the_parts_leave_nothing_over(loads: list[int], waiting: int) -> None:
    """However they round, and whoever has how much; and who has least takes one at least."""
    parts = [part_of(waiting, load, _others(loads, index)) for index, load in enumerate(loads)]
    assert sum(parts) >= waiting
    assert all(0 <= part <= waiting for part in parts)
    if waiting:
        assert parts[loads.index(min(loads))] >= 1


@given(st.lists(st.integers(0, TOLERANCE - 1), min_size=1, max_size=8), st.integers(0, 500))
def test_small_loads_are_level_afterwards(loads: list[int], waiting: int) -> None:
    """No two of those who took some are further apart than the rounding; the rest had more."""
    parts = [part_of(waiting, load, _others(loads, index)) for index, load in enumerate(loads)]
    ends = [load + part for load, part in zip(loads, parts, strict=True)]
    reached = [end for end, part in zip(ends, parts, strict=True) if part]
    assert sum(parts) < waiting + len(loads)
    if reached:
        assert max(reached) - min(reached) <= 1
        assert min(ends) >= max(reached) - 1


@given(LOADS, st.integers(0, 20))
def test_somebody_may_always_take_the_next(loads: list[int], ahead: int) -> None:
    """Whoever has least does not wait; nor does anybody for whom nobody else could take it."""
    least = loads.index(min(loads))
    assert is_level(loads[least], _others(loads, least), ahead)
    assert is_level(loads[0], [], ahead)


@given(LOADS, st.integers(0, 300), st.integers(1, 500))
def test_whoever_has_more_takes_no_more(loads: list[int], load: int, waiting: int) -> None:
    """A part falls as the load grows, and one who is not level takes none of a single connection."""
    assert part_of(waiting, load, loads) >= part_of(waiting, load + 1, loads)
    if not is_level(load, loads):
        assert part_of(1, load, loads) == 0


@given(st.integers(2, 6), st.integers(0, 400), st.randoms(use_true_random=False))
def test_any_order_of_wakings_spreads_them(workers: int, count: int, chance: object) -> None:
    """One by one, each taken by any worker that may: the busiest is ahead by its tolerance at most."""
    loads = [0] * workers
    for _ in range(count):
        may = [i for i, load in enumerate(loads) if is_level(load, _others(loads, i))]
        loads[chance.choice(may)] += 1  # type: ignore[attr-defined]  # a random.Random
    busiest = max(loads)
    assert busiest - 1 - (busiest - 1) // TOLERANCE <= min(loads)


def test_two_idle_workers_halve_a_crowd() -> None:
    """And one that is alone takes it all."""
    assert part_of(40, 0, [0]) == 20
    assert part_of(40, 0, []) == 40
    assert part_of(38, 2, [0]) == 18
    assert part_of(1, 9, [9, 9]) == 1
    assert part_of(3, 5, [0]) == 0
