"""The laws of the parsers, on good messages that were damaged, on the corpora and on noise."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, strategies as st

from tests.hostile.laws import (
    law_of_answers,
    law_of_bodies,
    law_of_forwarded,
    law_of_heads,
    law_of_requests,
)
from tests.hostile.rows import ANSWERS, REQUESTS, extra_rows, shared_rows
from tests.hostile.streams import (
    ANSWER_PARTS,
    FORWARDED_PARTS,
    GOOD_ANSWERS,
    damaged,
    damaged_requests,
)

#: With 2,000 examples, as in the profile `deep`.
pytestmark = pytest.mark.timeout(600)
#: The law of answers stands in for classes that, compiled, take only each other.
interpreted = pytest.mark.skipif(
    os.environ.get("UNDERSTUDY_COMPILED") == "1", reason="compiled classes cannot be stood in for"
)

SIZES = st.integers(1, 40)
NOISE = st.binary(max_size=200)
REQUEST_ROWS = [row.data for row in [*shared_rows(*REQUESTS), *extra_rows("request")]]
ANSWER_ROWS = [row.data for row in [*shared_rows(ANSWERS), *extra_rows("answer")]]
METHODS = st.sampled_from([b"GET", b"HEAD"])
CHUNKS = st.lists(
    st.sampled_from(
        [
            b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b'1;a="b;\\"c"\r\nx\r\n', b"x: y\r\n", b"\n", b"\r",
            b"00a ; b\r\n0123456789\r\n", b"1", b"f" * 16, b";", b'"', b"5\r\nhelloX", b"host: a\r\n", b"\x00",
        ]
    ),
    max_size=9,
).map(b"".join)  # fmt: skip


@given(damaged_requests() | NOISE, SIZES)
@example(b"GET / HTTP/1.1\r\nhost: a\r\r\n\r\n", 1)
def test_requests(data: bytes, size: int) -> None:
    """What goes upstream is what a strict reader finds, however it is cut."""
    law_of_requests(data, size)


@given(damaged_requests() | NOISE, SIZES)
@example(b"\r\r\n\r\n", 1)
def test_heads(data: bytes, size: int) -> None:
    """The verdict on a head does not depend on how it is cut."""
    law_of_heads(data, size)


@given(CHUNKS | NOISE, SIZES)
def test_bodies(data: bytes, size: int) -> None:
    """A chunked body is what a strict reader says, however it is cut."""
    law_of_bodies(data, size)


@interpreted
@given(damaged(GOOD_ANSWERS, ANSWER_PARTS) | NOISE, SIZES, METHODS)
def test_answers(data: bytes, size: int, method: bytes) -> None:
    """An answer is passed on as a strict reader finds it, or the user is told that it is not."""
    law_of_answers(data, size, method)


@given(st.lists(st.sampled_from(FORWARDED_PARTS), max_size=12).map(b"".join) | NOISE)
def test_forwarded(data: bytes) -> None:
    """What a trusted proxy says becomes clean lines."""
    law_of_forwarded(data, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_requests_of_all_corpora(size: int) -> None:
    """In small pieces, where each row is short enough for it."""
    for data in REQUEST_ROWS:
        if len(data) < 40_000:
            law_of_requests(data, max(size, len(data) // 2_000))
            law_of_heads(data, max(size, len(data) // 2_000))


@interpreted
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_answers_of_all_corpora(size: int) -> None:
    """In small pieces, where each row is short enough for it."""
    for data in ANSWER_ROWS:
        if len(data) < 40_000:
            for method in (b"GET", b"HEAD"):
                law_of_answers(data, max(size, len(data) // 2_000), method)
