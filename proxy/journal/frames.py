"""Where zstd frames begin and end in a buffer, by their headers alone (RFC 8878 section 3.1.1).

Pure. It decides whether the bytes at an offset are a whole frame, the start of one, or no frame of
ours; it does not decompress, so it cannot say whether the content is right: the reader's checksum
does that.

A frame of ours always carries a content size and a checksum and never a dictionary. A header that
says otherwise is damage, not another dialect: accepting a frame whose checksum flag was flipped
off would let a corrupt record through.
"""

from __future__ import annotations

from typing import Protocol

#: zstd's magic number, little endian.
MAGIC = b"\x28\xb5\x2f\xfd"

#: The most a frame may hold, uncompressed. The writer never makes a larger one, so a header that
#: declares more is corrupt; without the bound, one flipped byte could ask for terabytes of memory.
MAX_CONTENT_BYTES = 64 * 1024 * 1024

#: RFC 8878 section 3.1.1.2.4: no block is larger than this.
MAX_BLOCK_BYTES = 128 * 1024

_CHECKSUM_BYTES = 4
_CHECKSUM_FLAG = 0b100
_SINGLE_SEGMENT_FLAG = 0b10_0000
# The unused bit, the reserved bit and the two dictionary bits; our writer sets none of them.
_FOREIGN_BITS = 0b1_1011
_RAW, _RLE, _RESERVED = 0, 1, 3


class Buffer(Protocol):
    """Bytes that can be sliced and searched: `bytes`, `bytearray` or an `mmap`."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...

    def find(self, sub: bytes, start: int = ..., /) -> int:
        """Return the first offset of `sub` at or after `start`, or -1."""
        ...


class CorruptFrameError(ValueError):
    """The bytes at an offset are not, and will never become, a frame of ours."""


def frame_end(buf: Buffer, start: int) -> int | None:
    """Return the offset just behind the frame that starts at `start`; None if it is incomplete.

    Raises:
        CorruptFrameError: whatever follows, no frame of ours starts here.
    """
    header = _header(buf, start)
    if header is None:
        return None
    position, _ = header
    while True:
        raw = buf[position : position + 3]
        if len(raw) < 3:
            return None
        fields = int.from_bytes(raw, "little")
        is_last, kind, size = fields & 1, (fields >> 1) & 3, fields >> 3
        if kind == _RESERVED or size > MAX_BLOCK_BYTES:
            raise CorruptFrameError(f"no block starts at offset {position}")
        position += 3 + (1 if kind == _RLE else size)
        if is_last:
            position += _CHECKSUM_BYTES
            return position if position <= len(buf) else None
        if position > len(buf):
            return None


def content_bytes(buf: Buffer, start: int) -> int | None:
    """Return the uncompressed size of the frame at `start`; None if its header is incomplete.

    Raises:
        CorruptFrameError: no frame of ours starts here.
    """
    header = _header(buf, start)
    return None if header is None else header[1]


def find_frame(buf: Buffer, start: int) -> int | None:
    """Return the first offset at or after `start` where a frame may begin; None if there is none.

    The magic number can occur inside compressed data, so a hit is a place to try, not a promise.
    """
    found = buf.find(MAGIC, start)
    return None if found < 0 else found


def whole_end(buf: Buffer) -> int:
    """Return the offset behind the last whole frame of `buf`: what follows is torn or damaged.

    A damaged region with whole frames behind it is stepped over.
    """
    end = 0
    position: int | None = find_frame(buf, 0)
    while position is not None:
        try:
            after = frame_end(buf, position)
        except CorruptFrameError:
            after = None
        if after is None:
            position = find_frame(buf, position + 1)
        else:
            end = after
            position = find_frame(buf, after)
    return end


def _header(buf: Buffer, start: int) -> tuple[int, int] | None:
    """Return where the first block starts and the content size; None if the header is incomplete.

    Raises:
        CorruptFrameError: not the header of a frame of ours.
    """
    magic = buf[start : start + 4]
    if magic != MAGIC[: len(magic)]:
        raise CorruptFrameError(f"no frame starts at offset {start}")
    descriptor = buf[start + 4 : start + 5]
    if not descriptor:
        return None
    flags = descriptor[0]
    if flags & _FOREIGN_BITS or not flags & _CHECKSUM_FLAG:
        raise CorruptFrameError(f"the frame at offset {start} is not one of ours")
    is_single = bool(flags & _SINGLE_SEGMENT_FLAG)
    size_bytes = 1 << (flags >> 6) if flags >> 6 else int(is_single)
    if not size_bytes:
        raise CorruptFrameError(f"the frame at offset {start} declares no content size")
    position = start + (5 if is_single else 6)
    raw = buf[position : position + size_bytes]
    if len(raw) < size_bytes:
        return None
    # RFC 8878 section 3.1.1.1.4: a two-byte size is stored less 256.
    content = int.from_bytes(raw, "little") + (256 if size_bytes == 2 else 0)
    if content > MAX_CONTENT_BYTES:
        raise CorruptFrameError(f"the frame at offset {start} declares {content} bytes")
    return position + size_bytes, content
