"""Duplicates are found and gaps are counted exactly, in little memory."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, strategies as st

from proxy.analysis.seen import CHUNK, ChunkBudget, SeenPairs, SequenceSet

NUMBERS = st.lists(
    st.one_of(st.integers(0, 200), st.integers(CHUNK - 5, CHUNK + 5), st.integers(0, 2**62)),
    max_size=200,
)


@given(NUMBERS)
def test_a_sequence_set_is_a_set(numbers: list[int]) -> None:
    """Against the built-in one, in any order, over chunk borders."""
    found, model = SequenceSet(ChunkBudget()), set[int]()
    for number in numbers:
        assert found.add(number) is (number not in model)
        model.add(number)
    assert found.count == len(model)
    if model:
        assert (found.first, found.last) == (min(model), max(model))
        masks = dict[int, int]()
        for chunk, mask in found.masks():
            masks[chunk] = masks.get(chunk, 0) | mask
        assert sum(mask.bit_count() for mask in masks.values()) == len(model)
        assert all(masks[number // CHUNK] >> (number % CHUNK) & 1 for number in model)


def test_pairs_in_order_take_no_bitmap_and_shuffled_ones_return_theirs() -> None:
    """A million in order is one run; holes that fill up give their bitmaps back."""
    budget = ChunkBudget()
    ordered = SequenceSet(budget)
    for number in range(1, 200_000):
        ordered.add(number)
    assert budget.left == ChunkBudget().left
    numbers = list(range(100_000))
    random.Random(7).shuffle(numbers)
    shuffled = SequenceSet(budget)
    assert all(shuffled.add(number) for number in numbers)
    assert not any(shuffled.add(number) for number in numbers)
    assert budget.left >= ChunkBudget().left - 4


def test_candidates_that_share_or_split_the_numbers_leave_the_same_gaps() -> None:
    """Whether every pair has its own number or every exchange has."""
    split, shared = SeenPairs(), SeenPairs()
    for seq in range(1, 101):
        if seq in (10, 11, 50):
            continue
        assert split.is_new("i", "v2" if seq % 3 else "v3", seq)
        assert shared.is_new("i", "v2", seq)
        assert shared.is_new("i", "v3", seq)
    for seen in (split, shared):
        (gap,) = seen.gaps()
        assert (gap.pairs, gap.missing) == (97, 3)
        assert seen.duplicates == 0


def test_each_instance_has_its_own_numbers_and_the_worst_comes_first() -> None:
    """A restarted worker starts again at one."""
    seen = SeenPairs()
    for instance, numbers in {"a": (1, 2, 3), "b": (1, 2, 9)}.items():
        for seq in numbers:
            assert seen.is_new(instance, "v2", seq)
    assert not seen.is_new("b", "v2", 9)
    assert [(gap.instance, gap.missing) for gap in seen.gaps()] == [("b", 6), ("a", 0)]
    assert seen.duplicates == 1


def test_numbers_that_use_up_the_memory_make_it_inexact_and_never_larger() -> None:
    """Hostile numbers cost duplicates that stay, and say so."""
    seen = SeenPairs(max_chunks=3)
    for seq in range(0, 100 * CHUNK, CHUNK):
        seen.is_new("i", "v2", seq + seq % 7)
    assert not seen.is_exact
    many = SeenPairs(max_sets=2)
    assert [many.is_new(name, "v2", 1) for name in "abca"] == [True, True, True, False]
    assert not many.is_exact


@given(st.lists(NUMBERS, max_size=6), st.booleans())
def test_arrays_are_added_as_numbers_are_one_by_one(
    arrays: list[list[int]], are_runs: bool
) -> None:
    """The same answers, counts and ends, whether dense or scattered."""
    found, model = SequenceSet(ChunkBudget()), SequenceSet(ChunkBudget())
    for numbers in arrays:
        if are_runs and numbers:
            numbers = [*range(numbers[0], numbers[0] + 40)]  # noqa: PLW2901 - a run in its place
        array = np.array(numbers, dtype=np.int64)
        assert found.add_all(array).tolist() == [model.add(number) for number in numbers]
        assert (found.count, found.first, found.last) == (model.count, model.first, model.last)
        assert all(number in found for number in numbers)


@given(NUMBERS, NUMBERS, st.integers(0, 300), st.integers(0, 300))
def test_sets_of_parts_merge_into_that_of_the_whole(
    first: list[int], second: list[int], start: int, size: int
) -> None:
    """With their overlap counted, whichever holds runs and whichever bitmaps."""
    parts = [SequenceSet(ChunkBudget()), SequenceSet(ChunkBudget())]
    for numbers, part in zip((first, second), parts, strict=True):
        part.add_all(np.array(numbers, dtype=np.int64))
    parts[1].add_all(np.arange(start, start + size))
    whole = {*first, *second, *range(start, start + size)}
    shared = {*first} & {*second, *range(start, start + size)}
    assert parts[0].overlap(parts[1]) == parts[1].overlap(parts[0]) == len(shared)
    parts[0].merge(parts[1])
    assert parts[0].count == len(whole)
    assert all(number in parts[0] for number in whole)
    if whole:
        assert (parts[0].first, parts[0].last) == (min(whole), max(whole))
    assert not parts[0].add_all(np.array(sorted(whole), dtype=np.int64)).any()
    assert parts[0].add(2**62 + 1)
