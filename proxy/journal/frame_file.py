"""One file of zstd frames, appended to; it never ends in half a frame that we could prevent.

Used for journal segments and for the local log. Each `append` compresses its content into one
self-contained frame with checksum and content size, so `zstdcat`, DuckDB and Polars read the file
as it is, and writes it with one `write` where the kernel takes it whole.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import zstandard

from proxy.journal.frames import whole_end

#: Level 1 costs half the CPU of level 3 and is 5% larger on JSON pairs.
LEVEL = 1


def compressor() -> zstandard.ZstdCompressor:
    """Return a compressor whose frames `proxy.journal.frames` accepts; reuse it across files."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)


class FrameFile:
    """An append-only file of frames, created 0600 and never opened again after `close`.

    With `goes_on` it may exist, cut by `cut_torn_tail`, and is appended to.

    Attributes:
        size_bytes: length of the file, whole frames only.
        is_whole: false when half a frame could not be cut off; append nothing more then.
    """

    def __init__(
        self, path: Path, zstd: zstandard.ZstdCompressor, *, goes_on: bool = False
    ) -> None:
        self.path = path
        self.is_whole = True
        self._zstd = zstd
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags if goes_on else flags | os.O_EXCL, 0o600)
        self.size_bytes = os.fstat(self._descriptor).st_size

    @property
    def descriptor(self) -> int:
        """The open file's descriptor; -1 when closed."""
        return self._descriptor

    def append(self, content: bytes) -> int:
        """Write `content` as one frame; return the frame's size in bytes.

        Raises:
            OSError: the disk refuses (full, read-only, gone); the file is cut back to its last
                whole frame.
        """
        frame = self._zstd.compress(content)
        written = os.write(self._descriptor, frame)
        if written != len(frame):
            # A short write means that the disk is nearly full or a signal came: finish or undo.
            written = self._write_rest(frame, written)
        self.size_bytes += written
        return written

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write_rest(self, frame: bytes, written: int) -> int:
        view = memoryview(frame)
        try:
            while written < len(frame):
                written += os.write(self._descriptor, view[written:])
        except OSError:
            self.is_whole = False
            os.ftruncate(self._descriptor, self.size_bytes)
            self.is_whole = True
            raise
        return written


def cut_torn_tail(path: Path) -> int:
    """Cut what follows the last whole frame of `path`; return the bytes cut.

    What a process left half written when it was killed. The file is mapped, not read, so that a
    worker's memory does not grow by a segment at start-up.

    Raises:
        OSError: the file cannot be opened or cut.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            return 0
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapping:
            end = whole_end(mapping)
        if end < size:
            os.ftruncate(descriptor, end)
        return size - end
    finally:
        os.close(descriptor)
