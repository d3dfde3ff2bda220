"""A source as it was when a verdict was made from it: files up to where they had been read.

Logs are only ever appended to, so the first bytes of a file are what it was. Files that have not grown
are linked, the one or two that have are copied up to the offset, and newer ones are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from proxy.analysis.sources import files_of
from proxy.errors import SourceError

#: What the name of a Parquet file is followed by in offsets, which then count row groups.
_ROW_GROUPS: Final = ", row groups"
_COPY_BYTES: Final = 1024 * 1024


@contextmanager
def as_of(source: str, offsets: Mapping[str, int]) -> Iterator[str]:
    """Give the name of a source that holds what `source` held up to `offsets`.

    A topic is given as it is; whether it has grown, the offsets of its reading tell.

    Raises:
        SourceError: a file is gone or shorter, there are no offsets, or the temporary disk is full.
    """
    if not offsets:
        raise SourceError(
            "this verdict does not say up to where it has read; its counts alone can be checked, by "
            "--from-record"
        )
    if source.startswith("kafka://"):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="understudy-as-of-") as folder:
        there = {path.name: path for path in files_of(source)}
        try:
            for name, end in offsets.items():
                _place(there, name, end, Path(folder))
        except OSError as exc:
            raise SourceError(f"cannot lay out {source} as it was: {exc}") from exc
        yield folder


def _place(there: Mapping[str, Path], name: str, end: int, folder: Path) -> None:
    bare = name.removesuffix(_ROW_GROUPS)
    path = there.get(bare)
    if path is None:
        raise SourceError(f"{bare}, which the verdict was made from, is not there any more")
    size = path.stat().st_size
    if bare != name or size == end:
        (folder / bare).symlink_to(path.absolute())
        return
    if size < end:
        raise SourceError(f"{bare} is shorter than when the verdict was made from it")
    with path.open("rb") as file, (folder / bare).open("wb") as copy:
        left = end
        while left and (piece := file.read(min(left, _COPY_BYTES))):
            copy.write(piece)
            left -= len(piece)
