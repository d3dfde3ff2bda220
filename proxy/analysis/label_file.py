"""Labels in a file that people have: NDJSON or CSV, plain, gzip or zstd, read line by line.

It decides what a row of a CSV means; whether a line is a label, `proxy.pairs.label` does.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import orjson
import zstandard

from proxy.errors import SourceError
from proxy.pairs.label import MAX_LINE_BYTES, Label, LabelError, make, read_line

#: How a CSV's label is read: as JSON where it is some and else as text; or always as one of them.
LabelType = Literal["auto", "text", "json"]
Format = Literal["auto", "ndjson", "csv"]

_ENDINGS: Final = (".gz", ".zst")
#: Compressed bytes at once: a frame of zeros makes 32 MB of a KiB.
_READ_BYTES: Final = 1024


class Entry(NamedTuple):
    """One line of a file: a label, or what is wrong with it.

    Attributes:
        number: of the line, from 1 on.
        done_bytes: how much of the file, as it lies on the disk, has been read.
    """

    number: int
    label: Label | None
    fault: str
    done_bytes: int


def read_labels(
    path: Path, *, kind: Format = "auto", label_type: LabelType = "auto", now_ms: int
) -> Iterator[Entry]:
    """Yield what each line of `path` is; blank lines are passed over.

    Args:
        path: the file; `-` is standard input.
        kind: `auto` takes a name that ends in `.csv` (`.csv.gz`, `.csv.zst`) for CSV.
        label_type: how the label of a CSV is read.
        now_ms: the time of labels that have none.

    Raises:
        SourceError: the file cannot be read, or a CSV has no fitting head.
    """
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    is_csv = kind == "csv" or (kind == "auto" and name.endswith(".csv"))
    try:
        # Standard input is read as it comes, because it may be a pipe of any length.
        with (
            open(0 if name == "-" else path, "rb") as file,  # noqa: PTH123 - a descriptor
            closing(_unpacked(file, path)) as stream,
        ):
            rows = _rows(stream, label_type, now_ms) if is_csv else _lines(stream, now_ms)
            for number, label, fault in rows:
                yield Entry(number, label, fault, _position(file))
    except (OSError, EOFError, zstandard.ZstdError) as exc:
        raise SourceError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc


_Found = tuple[int, Label | None, str]


def _lines(stream: BinaryIO, now_ms: int) -> Iterator[_Found]:
    number = 0
    # Bounded, so that a file without line ends does not fill the memory.
    while line := stream.readline(MAX_LINE_BYTES + 2):
        number += 1
        while not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES:
            rest = stream.readline(MAX_LINE_BYTES)
            if not rest or rest.endswith(b"\n"):
                break
        if line.strip():
            yield _judged(number, line.rstrip(b"\r\n"), now_ms)


def _judged(number: int, line: bytes, now_ms: int) -> _Found:
    try:
        return number, read_line(line, now_ms), ""
    except LabelError as exc:
        return number, None, str(exc)


def _rows(stream: BinaryIO, label_type: LabelType, now_ms: int) -> Iterator[_Found]:
    csv.field_size_limit(MAX_LINE_BYTES)
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        head = _head(reader)
        missing = [name for name in ("request_id", "label") if name not in head]
        if missing:
            raise SourceError(
                f"the CSV's first line must name its columns; {missing[0]} is missing"
            )
        while True:
            try:
                row = next(reader, None)
            except (csv.Error, UnicodeDecodeError) as exc:
                raise SourceError(f"line {reader.line_num + 1} of the CSV: {exc}") from exc
            if row is None:
                return
            try:
                yield reader.line_num, make(_fields(row, label_type), now_ms), ""
            except LabelError as exc:
                yield reader.line_num, None, str(exc)


def _head(reader: csv.DictReader[str]) -> Sequence[str]:
    try:
        return reader.fieldnames or ()
    except (csv.Error, UnicodeDecodeError) as exc:
        raise SourceError(f"line 1 of the CSV: {exc}") from exc


def _fields(row: dict[Any, Any], label_type: LabelType) -> dict[str, Any]:
    """Return a row as a label's fields; empty cells are absent."""
    if row.pop(None, None) is not None:
        raise LabelError("has more cells than the first line has names")
    fields: dict[str, Any] = {name: cell for name, cell in row.items() if cell not in (None, "")}
    if "label" in fields and label_type != "text":
        fields["label"] = _json(fields["label"], is_strict=label_type == "json")
    for name in ("weight", "ts_ms"):
        if name in fields:
            fields[name] = _json(fields[name], is_strict=False)
    return fields


def _json(cell: str, *, is_strict: bool) -> Any:
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError as exc:
        if is_strict:
            raise LabelError(f"label: is not JSON: {exc}") from exc
        return cell
    # 1e999 is written like a number, and is none.
    return cell if isinstance(value, float) and not math.isfinite(value) else value


def _unpacked(file: BinaryIO, path: Path) -> BinaryIO:
    """Return the plain content; the format is told by the name, since a pipe cannot be looked into."""
    if path.name.endswith(".gz"):
        return gzip.open(file, "rb")  # type: ignore[return-value]  # a GzipFile reads like one
    if path.name.endswith(".zst"):
        return io.BufferedReader(_ZstdFrames(file))
    return file


class _ZstdFrames(io.RawIOBase):
    """The content of zstd frames, one after the other.

    The library's own reader takes a frame that is cut off for the end of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder: zstandard.ZstdDecompressionObj | None = None
        self._packed = b""
        self._plain = b""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; return how much it was, 0 at the end.

        Raises:
            EOFError: the last frame is not whole.
        """
        while not self._plain:
            self._packed = self._packed or self._file.read(_READ_BYTES)
            if not self._packed:
                if self._decoder is not None:
                    raise EOFError("it ends in the middle of a zstd frame")
                return 0
            self._decoder = self._decoder or zstandard.ZstdDecompressor().decompressobj()
            self._plain = self._decoder.decompress(self._packed)
            self._packed = self._decoder.unused_data if self._decoder.eof else b""
            if self._decoder.eof:
                self._decoder = None
        count = min(len(buffer), len(self._plain))
        buffer[:count], self._plain = self._plain[:count], self._plain[count:]
        return count


def _position(file: BinaryIO) -> int:
    try:
        return file.tell()
    except OSError:
        return 0
