"""Columns as codes say what the same columns say row by row."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, strategies as st

from proxy.analysis.coded import Coded, coded, combined, uncoded

VALUES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60)


@given(VALUES)
def test_a_column_gives_its_rows_back(values: list[str]) -> None:
    """However it was coded; its counts are theirs."""
    for column in (coded(values), uncoded(values)):
        assert column.rows() == values
        assert column.counts() == Counter(values)
        assert column.where("c".__eq__).tolist() == [value == "c" for value in values]


@given(VALUES, st.data())
def test_some_rows_keep_only_the_values_in_use(values: list[str], data: st.DataObject) -> None:
    """Each row has the value that it had, and no value is left without a row."""
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20))
    some = coded(values).at(np.array(rows, dtype=np.int64)).in_use()
    assert some.rows() == [values[row] for row in rows]
    assert {*some.values} == {*some.rows()}


@given(st.lists(st.tuples(*[st.integers(0, 8)] * 3), min_size=1, max_size=60), st.integers(1, 9))
def test_combined_columns_are_columns_of_tuples(
    rows: list[tuple[int, int, int]], spare: int
) -> None:
    """Each tuple once, also where columns have more values than rows use."""
    columns = []
    for column in zip(*rows, strict=True):
        plain = coded(column)
        columns.append(Coded(plain.codes, [*plain.values, *range(100, 100 * spare)]))
    found = combined(columns)
    assert found.rows() == rows
    assert len(found.values) == len({*rows})


def test_codes_of_very_many_values_do_not_overflow() -> None:
    """Five columns of 100,000 values each have more tuples than 64 bits count."""
    columns = [Coded(np.array([99_999, 5, 99_999]), range(100_000)) for _ in range(5)]
    assert combined(columns).rows() == [(99_999,) * 5, (5,) * 5, (99_999,) * 5]
