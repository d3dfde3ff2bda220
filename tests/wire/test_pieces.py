"""The pieces of a kept body take little more memory than what is in them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, strategies as st

from proxy.wire.pieces import WHOLE_BYTES, add_piece


@given(st.lists(st.binary(min_size=1, max_size=600)))
def test_nothing_is_lost_and_the_order_stays(given_pieces: list[bytes]) -> None:
    """Whatever the sizes are."""
    kept: list[bytes] = []
    for piece in given_pieces:
        add_piece(kept, piece)
    assert b"".join(kept) == b"".join(given_pieces)


@pytest.mark.parametrize("size", [1, 2, 100, 255, 256, 5000])
def test_the_objects_take_at_most_a_fifth_more_than_the_bytes(size: int) -> None:
    """A body in pieces of two bytes would take 24 times its size."""
    kept: list[bytes] = []
    total = 0
    while total < 100 * WHOLE_BYTES:
        add_piece(kept, bytes(size))
        total += size
    taken = sys.getsizeof(kept) + sum(sys.getsizeof(piece) for piece in kept)
    assert taken <= 1.2 * total
