"""Pairs written to one file: NDJSON, CSV or Parquet, whole or not at all.

The pairs stream through in bounded memory into a temporary file beside the target, which takes its
place only when it is complete and on the disk. So whoever waits for the file never sees half of
one, and an export that fails, or is stopped, leaves what was there before.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import orjson
import zstandard

from proxy.analysis.source import Record
from proxy.errors import ExportError
from proxy.pairs.record import FIELDS, Field

#: Pairs converted at once: as `proxy.analysis.aggregate`, they stay in the processor's cache, and
#: the largest that are recorded (0.25 MiB a body) take some hundred MB.
BATCH_PAIRS: Final = 256


class Format(StrEnum):
    """What a file is written as."""

    PARQUET = "parquet"
    NDJSON = "ndjson"
    CSV = "csv"


class _Writer(Protocol):
    """Writes pairs in one format."""

    #: Pairs that could not be written.
    bad: int

    def write(self, pairs: list[Record]) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did: pairs written, and pairs left out because a field has a wrong type."""

    pairs: int
    bad: int


class NdjsonWriter:
    """Writes a JSON object a line; without `fields` the records as they are."""

    bad = 0

    def __init__(self, stream: BinaryIO, fields: Sequence[Field] = ()) -> None:
        self._stream = stream
        self._names = [field.name for field in fields]

    def write(self, pairs: list[Record]) -> int:
        """Write `pairs`; return how many."""
        if self._names:
            pairs = [{name: pair.get(name) for name in self._names} for pair in pairs]
        lines = [orjson.dumps(pair, option=orjson.OPT_APPEND_NEWLINE) for pair in pairs]
        self._stream.write(b"".join(lines))
        return len(pairs)

    def close(self) -> None:
        """Nothing is left to be written."""


class CsvWriter:
    """Writes a table with a head line (RFC 4180); what is no plain value is JSON, null is empty."""

    bad = 0

    def __init__(self, stream: BinaryIO, fields: Sequence[Field] = ()) -> None:
        self._stream = stream
        self._names = [field.name for field in fields or FIELDS]
        self._write_rows([self._names])

    def write(self, pairs: list[Record]) -> int:
        """Write `pairs`; return how many."""
        self._write_rows([[_cell(pair.get(name)) for name in self._names] for pair in pairs])
        return len(pairs)

    def close(self) -> None:
        """Nothing is left to be written."""

    def _write_rows(self, rows: list[list[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._stream.write(text.getvalue().encode())


def _cell(value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        return orjson.dumps(value).decode()
    return value


def write_pairs(
    pairs: Iterable[Record],
    stream: BinaryIO,
    to: Format,
    *,
    columns: Sequence[Field] = (),
    on_batch: Callable[[], object] | None = None,
) -> Exported:
    """Write `pairs` to `stream` as they come.

    Args:
        pairs: each once; see `proxy.analysis.select`.
        stream: only written to, from its beginning to its end.
        to: the format.
        columns: fields to write, in this order; all by default.
        on_batch: called after every few hundred pairs, to show progress.

    Raises:
        SourceError: the pairs cannot be read, or what the format needs is not installed.
    """
    writer = _writer(stream, to, columns)
    written = 0
    each = iter(pairs)
    while batch := list(islice(each, BATCH_PAIRS)):
        written += writer.write(batch)
        if on_batch is not None:
            on_batch()
    writer.close()
    return Exported(written, writer.bad)


def _writer(stream: BinaryIO, to: Format, columns: Sequence[Field]) -> _Writer:
    if to is Format.PARQUET:
        # pyarrow is an extra.
        from proxy.analysis.parquet import ParquetWriter  # noqa: PLC0415

        return ParquetWriter(stream, columns or FIELDS)
    return CsvWriter(stream, columns) if to is Format.CSV else NdjsonWriter(stream, columns)


def columns_named(names: Sequence[str]) -> tuple[Field, ...]:
    """Return the fields with these names, in their order.

    Raises:
        ExportError: the record has no such field, or one is named twice.
    """
    known = {field.name: field for field in FIELDS}
    for number, name in enumerate(names):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see `understudy schema pair`"
            raise ExportError(f"a pair has no field {name!r}{hint}")
        if name in names[:number]:
            raise ExportError(f"column {name!r} is named twice")
    return tuple(known[name] for name in names)


@contextmanager
def whole_file(path: Path, to: Format) -> Iterator[BinaryIO]:
    """Give a stream whose content is at `path` when the block ends well, and nowhere otherwise.

    NDJSON and CSV are compressed when the name ends with `.zst` or `.gz`. Only the owner may read
    the file: it holds what users asked and got.

    Raises:
        ExportError: it cannot be written.
    """
    part = None
    try:
        descriptor, name = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
        part = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            with _packed(file, path, to) as stream:
                yield stream
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as exc:
        if part is not None:
            with suppress(OSError):
                part.unlink()
        if isinstance(exc, OSError):
            raise ExportError(f"cannot write {path}: {exc.strerror or exc}") from exc
        raise


@contextmanager
def _packed(file: BinaryIO, path: Path, to: Format) -> Iterator[BinaryIO]:
    """Give a stream that packs into `file` as the name says; Parquet packs by itself."""
    if to is not Format.PARQUET and path.suffix == ".zst":
        with zstandard.ZstdCompressor(write_checksum=True).stream_writer(
            file, closefd=False
        ) as zst:
            yield zst
    elif to is not Format.PARQUET and path.suffix == ".gz":
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            yield packed  # type: ignore[misc]  # it is a stream in all but name
    else:
        yield file
