"""Frames are found by their headers alone, whatever is cut off or flipped."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given, strategies as st

from proxy.journal.frame_file import compressor
from proxy.journal.frames import (
    MAX_CONTENT_BYTES,
    CorruptFrameError,
    content_bytes,
    find_frame,
    frame_end,
    whole_end,
)
from proxy.journal.scan import next_frame

contents = st.lists(
    st.one_of(
        st.binary(max_size=2_000),
        st.integers(1, 400_000).map(lambda size: b'{"a":1}\n' * (size // 8 + 1)),
        st.binary(min_size=1, max_size=1).map(lambda byte: byte * 5_000),
    ),
    min_size=1,
    max_size=5,
)


def stream(parts: list[bytes]) -> tuple[bytes, list[int]]:
    """Return the parts as frames, one behind the other, and where each ends."""
    zstd = compressor()
    joined, ends = b"", []
    for part in parts:
        joined += zstd.compress(part)
        ends.append(len(joined))
    return joined, ends


@given(contents)
def test_frames_are_walked_without_decompressing(parts: list[bytes]) -> None:
    """Each frame's end and content size follow from the headers."""
    joined, ends = stream(parts)
    position = 0
    for part, end in zip(parts, ends, strict=True):
        assert content_bytes(joined, position) == len(part)
        assert frame_end(joined, position) == end
        position = end


@given(contents, st.data())
def test_a_prefix_yields_whole_frames_only(parts: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere, what is found is exactly the frames that lie before the cut."""
    joined, ends = stream(parts)
    cut = data.draw(st.integers(0, len(joined)))
    prefix = joined[:cut]
    whole = [end for end in ends if end <= cut]

    assert whole_end(prefix) == (whole[-1] if whole else 0)
    assert _all_contents(prefix) == parts[: len(whole)]


@given(contents, st.data())
def test_a_flipped_byte_never_yields_a_corrupt_frame(
    parts: list[bytes], data: st.DataObject
) -> None:
    """One damaged frame is missing at most; every other one is still found, in order."""
    joined, ends = stream(parts)
    at = data.draw(st.integers(0, len(joined) - 1))
    flip = data.draw(st.integers(1, 255))
    damaged = bytearray(joined)
    damaged[at] ^= flip
    hit = next(number for number, end in enumerate(ends) if at < end)

    found = _all_contents(bytes(damaged))

    assert found in (parts, parts[:hit] + parts[hit + 1 :])


def test_every_byte_of_a_small_stream_flipped_and_cut() -> None:
    """Exhaustive for three frames: every bit, every length."""
    parts = [b'{"seq":1}\n{"seq":2}\n', b'{"seq":3}\n' * 50, b'{"seq":4}\n']
    joined, ends = stream(parts)
    for at in range(len(joined)):
        hit = next(number for number, end in enumerate(ends) if at < end)
        assert _all_contents(joined[:at]) == parts[:hit]
        for bit in range(8):
            damaged = bytearray(joined)
            damaged[at] ^= 1 << bit
            found = _all_contents(bytes(damaged))
            assert found in (parts, parts[:hit] + parts[hit + 1 :])


def test_a_frame_without_checksum_is_not_ours() -> None:
    """Else a flipped flag would let unchecked content through."""
    frame = zstandard.ZstdCompressor(write_checksum=False).compress(b"x" * 100)
    with pytest.raises(CorruptFrameError):
        frame_end(frame, 0)


def test_a_frame_without_content_size_is_not_ours() -> None:
    """Else the memory it asks for would be unknown."""
    zstd = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
    with pytest.raises(CorruptFrameError):
        frame_end(zstd.compress(b"x" * 100), 0)


def test_a_header_that_asks_for_too_much_memory_is_corrupt() -> None:
    """A content size over the limit is damage, because the writer makes no such frame."""
    header = (
        b"\x28\xb5\x2f\xfd" + bytes([0b1110_0100]) + (MAX_CONTENT_BYTES + 1).to_bytes(8, "little")
    )
    with pytest.raises(CorruptFrameError):
        frame_end(header, 0)


def test_find_frame_gives_the_next_magic_number() -> None:
    """And None when there is none."""
    frame = compressor().compress(b"x")
    assert find_frame(b"junk" + frame, 0) == 4
    assert find_frame(b"junk", 0) is None


def test_whole_end_steps_over_damage_between_frames() -> None:
    """Only what follows the last whole frame is torn."""
    frame = compressor().compress(b"x" * 50)
    assert whole_end(frame + b"damage" + frame + frame[:7]) == 2 * len(frame) + 6
    assert whole_end(b"\0" * 100) == 0


def _all_contents(buf: bytes) -> list[bytes]:
    zstd = zstandard.ZstdDecompressor()
    found = []
    frame = next_frame(buf, 0, zstd)
    while frame is not None:
        found.append(frame.content)
        frame = next_frame(buf, frame.end, zstd)
    return found
