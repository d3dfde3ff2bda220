"""The times of an answer in pieces: exact where said, within the stated error elsewhere."""

from __future__ import annotations

import statistics
import sys

import pytest
from hypothesis import given, strategies as st

from proxy.wire.stream_times import MEDIAN_ERROR, StreamTimes, has_content

#: Pauses from well below a microsecond to over an hour, in seconds.
pauses = st.floats(1e-8, 4000.0, allow_nan=False)
MICROSECOND_S = 1e-6


def _taken(gaps_s: list[float]) -> tuple[StreamTimes, list[float]]:
    """Return the times of pieces so far apart, and the gaps that a clock of floats can tell."""
    times, now_s, seen = StreamTimes(), 1000.0, []
    times.piece(now_s)
    for gap_s in gaps_s:
        seen.append(now_s + gap_s - now_s)
        now_s += gap_s
        times.piece(now_s)
    return times, seen


@given(st.lists(pauses, min_size=1, max_size=200))
def test_the_median_is_within_its_error_and_the_longest_is_exact(gaps_s: list[float]) -> None:
    """Whatever the pauses were."""
    times, seen = _taken(gaps_s)
    true_s = statistics.median_low(seen)
    assert times.gaps == len(gaps_s)
    assert times.longest_s == max(seen)
    assert abs(times.median_s() - true_s) <= MEDIAN_ERROR * true_s + MICROSECOND_S
    assert times.median_s() <= times.longest_s


def test_what_is_kept_of_a_long_stream_does_not_grow() -> None:
    """A hundred thousand events of every length are counted in some hundred sizes."""
    times, now_s = StreamTimes(), 1.0
    for number in range(100_000):
        times.piece(now_s)
        now_s += 1e-6 * 1.0002**number
    assert sys.getsizeof(times._counts) + 100 * len(times._counts) < 150_000
    assert len(times._counts) < 1000
    assert len(times._recent_us) < 100


def test_a_gap_in_which_the_client_held_the_answer_back_is_left_out() -> None:
    """It says nothing of the backend; the gaps on both sides of it count."""
    times = StreamTimes()
    for now_s in (1.0, 1.1):
        times.piece(now_s)
    times.held()
    for now_s in (9.0, 9.2):
        times.piece(now_s)
    assert times.gaps == 2
    assert times.longest_s == pytest.approx(0.2)


def test_one_piece_has_no_gap() -> None:
    """Nothing is made up."""
    times = StreamTimes()
    times.piece(5.0)
    assert (times.gaps, times.longest_s, times.median_s()) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (b": ping\n\n", False),
        (b"event: start\n\n", False),
        (b"data: hello\n\n", True),
        (b": ping\n\ndata: hello\n\n", True),
        (b"event: delta\r\ndata: x\r\n\r\n", True),
        (b"data: [DONE]\n\n", True),
        (b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n', False),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', False),
        (b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\n\n', False),
        (b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n', True),
        (b'data: {"choices": [{"delta": {"content": "\\n"}}]}\n\n', True),
        (b'data: {"choices":[{"text":"Hi"}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"Hm"}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}]}\n\n', True),
        (b'data: {"error":{"message":"overloaded"}}\n\n', True),
    ],
)
def test_the_first_content_is_what_a_reader_would_see(piece: bytes, expected: bool) -> None:
    """Comments, names of roles and counts of tokens are not."""
    assert has_content(piece) is expected
