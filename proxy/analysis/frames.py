"""Pairs for notebooks and scripts: chosen once, read as often as asked, as Arrow, Polars or NumPy.

The same sources and filters as `understudy pairs export`, and the same columns: what that writes to
Parquet is what is here in memory. A reading goes in batches that are bounded in rows and bytes;
whoever asks for all of it at once gets it up to a limit, beyond which it is refused with advice.

Needs pyarrow, the extra `analysis`, when pairs are read; choosing needs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from proxy.analysis.export import columns_named
from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.select import Select, SelectStatistics
from proxy.analysis.source import SourceStatistics
from proxy.analysis.sources import open_source
from proxy.analysis.window import parse_instant_ms
from proxy.errors import ExportError, SourceError
from proxy.pairs.record import FIELDS, Field, Kind
from proxy.telemetry import rfc3339, wall_ns

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

#: Rows of a batch where nobody says how many.
ROWS: Final = 65_536
#: What a whole table may take in memory where nobody says how much.
MAX_BYTES: Final = 2 * 1024**3
#: How a label of `segments` is named as a column of its own.
SEGMENT: Final = "segments."


@dataclass(slots=True)
class ReadStatistics:
    """What became of a reading of pairs so far.

    Attributes:
        source: of the records: bad lines, torn ends, damaged regions, how far it is.
        pairs: given out.
        duplicates: delivered again, and left out.
        bad: records that are no pairs, or have a field of a wrong type.
        is_exact: False when duplicates may be left, because the numbers of pairs are too scattered.
    """

    source: SourceStatistics
    pairs: int = 0
    duplicates: int = 0
    bad: int = 0
    is_exact: bool = True

    def note(self, select: SelectStatistics, wrong: int) -> None:
        """Take over what a choice has counted, and how many pairs had a field of a wrong type."""
        self.duplicates, self.is_exact = select.duplicates, select.is_exact
        self.bad = select.bad + wrong


class Pairs:
    """A choice of recorded pairs; nothing is read before a method asks for it, then afresh each time.

    Attributes:
        source: where they are, as given.
        wanted: the filter, its instants fixed when the choice was made.
        columns: fields by name, in order; empty: all.
    """

    def __init__(self, source: str, wanted: PairFilter, columns: Sequence[str] = ()) -> None:
        """Choose pairs; `proxy.analysis.pairs` says it in words.

        Raises:
            ExportError: a pair has no such field.
        """
        self.source = source
        self.wanted = wanted
        self.columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self._fields = _fields(self.columns)
        self._statistics: ReadStatistics | None = None

    def __repr__(self) -> str:
        wanted = self.wanted
        since, until = (
            "" if at is None else rfc3339(at) for at in (wanted.since_ms, wanted.until_ms)
        )
        told = {
            "route": wanted.route,
            "candidate": wanted.candidate,
            "since": since,
            "until": until,
            "columns": self.columns,
        }
        chosen = "".join(f", {name}={value!r}" for name, value in told.items() if value)
        return f"pairs({self.source!r}{chosen})"

    def statistics(self) -> ReadStatistics | None:
        """Return what became of the latest reading, live; None before the first."""
        return self._statistics

    def batches(self, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
        """Yield all pairs as Arrow record batches, in memory that does not grow with their number.

        Columns have the types of `understudy pairs export --to parquet`: times in milliseconds as
        float64, `ts_ms` int64, predictions as JSON text, `segments` a map. A batch has at most
        `rows` rows, and ends earlier when it takes 64 MiB.

        Raises:
            SourceError: the source cannot be read, or pyarrow is not installed.
            ValueError: `rows` is not positive.
        """
        if rows < 1:
            raise ValueError(f"rows must be positive, not {rows}")
        # pyarrow is an extra, and takes a tenth of a second to import; this says how to get it.
        import_module("proxy.analysis.parquet")
        from proxy.analysis.arrow_batches import joined  # noqa: PLC0415
        from proxy.analysis.parquet import is_full  # noqa: PLC0415

        found: list[pa.RecordBatch] = []
        count = 0
        for batch in self._batches():
            rest = batch
            while rest.num_rows:
                found.append(rest.slice(0, rows - count))
                count += found[-1].num_rows
                rest = rest.slice(found[-1].num_rows)
                if is_full(found, rows):
                    yield joined(found)
                    found, count = [], 0
        if count:
            yield joined(found)

    def arrow(self, *, max_bytes: int = MAX_BYTES) -> pa.Table:
        """Return all pairs as one Arrow table, shape `(pairs, columns)`; types as of `batches`.

        Raises:
            SourceError: as `batches`; or the table would take more than `max_bytes`.
        """
        from proxy.analysis.parquet import ArrowRows  # noqa: PLC0415

        table = import_module("pyarrow").Table
        schema = ArrowRows(self._fields).schema
        return table.from_batches(self._bounded(max_bytes), schema)

    def polars(self, *, max_bytes: int = MAX_BYTES) -> pl.DataFrame:
        """Return all pairs as a Polars data frame, shape `(pairs, columns)`; types as of `batches`.

        A map such as `segments` becomes a list of key and value: name `segments.NAME` among the
        columns to have a label as text.

        Raises:
            SourceError: as `arrow`; or Polars is not installed.
        """
        try:
            polars = import_module("polars")
        except ImportError as exc:
            raise SourceError(
                "Polars is not installed; run: pip install 'understudy[analysis]'"
            ) from exc
        frame: pl.DataFrame = polars.from_arrow(self.arrow(max_bytes=max_bytes))
        return frame

    def numpy(self, *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray[Any, Any]]:
        """Return all pairs as one array for each column, each of shape `(pairs,)` but for vectors.

        Numbers are float64 with NaN for null, those that are never null int64 or bool; a boolean that
        may be null (`equal`) is 1.0, 0.0 or NaN. Texts and `segments` are Python objects, None for
        null. Predictions are float64 where all are numbers (a list of one means what is in it), of
        shape `(pairs, k)` where all are vectors of k numbers, else Python objects.

        Raises:
            SourceError: as `arrow`.
        """
        # numpy and pyarrow are imported when somebody has them in hand.
        from proxy.analysis.arrays import arrays_of  # noqa: PLC0415

        return arrays_of(self._fields, self._bounded(max_bytes))

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Yield batches as the source gives them, and count what was read and left out."""
        from proxy.analysis.arrow_batches import batches_of  # noqa: PLC0415
        from proxy.analysis.parquet import ArrowRows  # noqa: PLC0415

        wanted = self.wanted
        source = open_source(self.source, since_ms=wanted.since_ms, until_ms=wanted.until_ms)
        select, converter = Select(wanted), ArrowRows(self._fields)
        self._statistics = counts = ReadStatistics(source.statistics())
        for batch in batches_of(source, self._fields, select, converter):
            counts.pairs += batch.num_rows
            counts.note(select.statistics(), converter.bad)
            yield batch
        counts.note(select.statistics(), converter.bad)

    def _bounded(self, max_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield `batches` until they take more than `max_bytes` together.

        Raises:
            SourceError: they do.
        """
        taken = rows = 0
        for batch in self.batches():
            taken += batch.nbytes
            rows += batch.num_rows
            if taken > max_bytes:
                raise SourceError(
                    f"{self.source}: {rows:,} pairs take {taken / 2**20:,.0f} MiB, more than "
                    f"max_bytes ({max_bytes / 2**20:,.0f} MiB), and there are more: name the columns= "
                    "that you need, choose fewer by since=, until=, route= and candidate=, or go "
                    "through batches()"
                )
            yield batch


def pairs(
    source: str | os.PathLike[str],
    *,
    route: str = "",
    candidate: str = "",
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    columns: Sequence[str] = (),
) -> Pairs:
    """Choose recorded pairs; nothing is read yet.

    Args:
        source: a state directory, a folder or file of NDJSON (plain, gzip, zstd) or Parquet, or
            `kafka://HOST:PORT/TOPIC`, which is read until its end of now.
        route: only pairs of this route; all by default.
        candidate: only pairs of this candidate; all by default.
        since: only requests from then on: `15m`, `2h`, `7d` for how long before now, an ISO 8601 time,
            or a datetime; without an offset it is UTC.
        until: only requests before then, written likewise.
        columns: fields of the record, in this order, all by default (`understudy schema pair` tells
            them); `segments.NAME` is a label of the request as text.

    Raises:
        SourceError: a time is none.
        ExportError: a pair has no such field.
    """
    now_ms = wall_ns() // 1_000_000
    wanted = PairFilter(
        route=route,
        candidate=candidate,
        since_ms=_instant_ms(since, now_ms),
        until_ms=_instant_ms(until, now_ms),
    )
    return Pairs(os.fspath(source), wanted, columns)


def _instant_ms(value: str | datetime | None, now_ms: int) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        whole = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return round(whole.timestamp() * 1000)
    return parse_instant_ms(value, now_ms=now_ms)


def _fields(columns: Sequence[str]) -> tuple[Field, ...]:
    """Return the fields that are named, in their order; all where none is.

    Raises:
        ExportError: there is no such field, or one is named twice.
    """
    labels = {
        name: Field(name, Kind.STRING, f"Segment {name.removeprefix(SEGMENT)}.")
        for name in columns
        if name.startswith(SEGMENT)
    }
    plain = {f.name: f for f in columns_named([name for name in columns if name not in labels])}
    if len(labels) + len(plain) < len(columns):
        raise ExportError(f"a segment is named twice among {', '.join(columns)}")
    return tuple({**labels, **plain}[name] for name in columns) or FIELDS
