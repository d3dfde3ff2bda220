"""Parquet counted by columns: no pair becomes a Python object but those that are shown.

A row group is read as Arrow; fields of few values become codes, their combinations are found by
sorting, and numbers stay arrays. Only the columns that are counted are read; bodies of the few pairs
that differ most are fetched afterwards. Files of other types or without required columns go the way
of records, which is slower and tells what is wrong.

Needs pyarrow, the extra `analysis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxy.analysis.aggregate import Aggregate, Group
from proxy.analysis.batch import Columns
from proxy.analysis.coded import Coded, Codes, coded, combined
from proxy.analysis.parquet import arrow_schema, has_types, records_of
from proxy.analysis.parts import Part
from proxy.analysis.rows import (
    ALL_FIELDS,
    COUNTED_FIELDS,
    NUMBER_FIELDS,
    PLACE_FIELDS,
    REQUIRED_FIELDS,
    STREAM_FIELDS,
)
from proxy.analysis.source import Record, SourceStatistics
from proxy.analysis.taking import taken, worst_rows
from proxy.analysis.tosses import has_canary
from proxy.errors import SourceError
from proxy.pairs.record import FIELDS

#: Rows at once: some 5 MB of columns. Twice as many took 30 MB more in each process, and as long.
_ROWS: Final = 16_384
#: What is told of the pairs that differ most.
_DETAILS: Final = (
    "pair_id", "request_id", "ts", "abs_diff", "rel_diff", "first_diff_path", "primary_prediction",
    "candidate_prediction", "primary_body", "candidate_body",
)  # fmt: skip
_NEVER_NULL: Final = tuple(
    field.name for field in FIELDS if field.is_required and field.name in REQUIRED_FIELDS
)
_SCHEMA: Final = arrow_schema()


def count_row_groups(part: Part, aggregate: Aggregate) -> SourceStatistics:
    """Count the row groups of `part` into `aggregate`; return what became of them.

    Raises:
        SourceError: the file is damaged, or cannot be read.
    """
    statistics = SourceStatistics(str(part.path), "files", parts=1, done=part.size_bytes)
    groups = part.row_groups or ()
    # Arrow's own pool keeps what is freed from Python, and Python what is freed from Arrow.
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        there = {*pq.read_schema(part.path).names}
        strings = [n for n in ALL_FIELDS if n in there and _SCHEMA.field(n).type == pa.string()]
        with pq.ParquetFile(part.path, read_dictionary=strings, pre_buffer=False) as file:
            if not _is_ours(file.schema_arrow):
                _count_records(part, aggregate)
            else:
                for number in groups:
                    _count_row_group(file, number, aggregate)
    except (pa.ArrowException, orjson.JSONDecodeError, OSError) as exc:
        raise SourceError(f"cannot read the Parquet file {part.path}: {exc}") from exc
    finally:
        pa.set_memory_pool(before)  # a notebook has tables of its own
    statistics.offsets[f"{part.path.name}, row groups"] = max(groups, default=-1) + 1
    return statistics


def _is_ours(schema: pa.Schema) -> bool:
    """Return whether all columns have the record's types, and no required one is left out."""
    names = {*schema.names}
    if not names.issuperset(REQUIRED_FIELDS):
        return False
    return has_types(schema, names.intersection(ALL_FIELDS))


def _count_records(part: Part, aggregate: Aggregate) -> None:
    with pq.ParquetFile(part.path) as file:
        for record in records_of(file, part.row_groups or ()):
            aggregate.add(record)
    aggregate.flush()


def _count_row_group(file: pq.ParquetFile, number: int, aggregate: Aggregate) -> None:
    there = {*file.schema_arrow.names}
    names = [name for name in ALL_FIELDS if name in there]
    if not aggregate.has_labels:
        names = [name for name in names if name != "request_id"]
    batches = file.iter_batches(
        batch_size=_ROWS, row_groups=[number], columns=names, use_threads=False
    )
    for place, batch in enumerate(batches):
        if any(batch.column(name).null_count for name in _NEVER_NULL):
            _count_rows(file, number, place, aggregate)
            continue
        rows = _Rows(batch, partial(_details, file, number, place))
        aggregate.records += batch.num_rows
        for route, candidate, chosen in rows.taken(aggregate):
            group = aggregate.group(route, candidate, chosen.size)
            if group is not None:
                aggregate.count(group, rows.columns(chosen, group))


def _count_rows(file: pq.ParquetFile, row_group: int, place: int, aggregate: Aggregate) -> None:
    """Count a batch in which some record is none, one by one."""
    for at, record in enumerate(records_of(file, [row_group])):
        if place * _ROWS <= at < (place + 1) * _ROWS:
            aggregate.add(record)
    aggregate.flush()


def _details(file: pq.ParquetFile, row_group: int, place: int) -> pa.RecordBatch:
    there = {*file.schema_arrow.names}
    names = [name for name in _DETAILS if name in there]
    batches = file.iter_batches(
        batch_size=_ROWS, row_groups=[row_group], columns=names, use_threads=False
    )
    return next(batch for number, batch in enumerate(batches) if number == place)


class _Rows:
    """The rows of one batch.

    Args:
        batch: their counted columns.
        details: gives the columns of `_DETAILS` of the same rows.
    """

    def __init__(self, batch: pa.RecordBatch, details: Callable[[], pa.RecordBatch]) -> None:
        self._batch = batch
        self._details = details
        self._seqs = batch.column("seq").to_numpy()
        self._times_ms = batch.column("ts_ms").to_numpy()
        self._abs_diff = self._floats("abs_diff")
        self._counted = self._combined(COUNTED_FIELDS)

    def taken(self, aggregate: Aggregate) -> Iterator[tuple[str, str, Codes]]:
        """Yield route, candidate and rows of the pairs that count, and note all as seen."""
        return taken(aggregate, self._combined(PLACE_FIELDS), self._seqs, self._times_ms)

    def columns(self, rows: Codes, group: Group) -> Columns:
        """Return the columns of `rows`, which are of one candidate."""
        numbers = {name: self._floats(name)[rows] for name in NUMBER_FIELDS}
        for name in STREAM_FIELDS:
            column = self._floats(name)[rows]
            if not np.isnan(column).all():
                numbers[name] = column
        return Columns(
            counted=self._counted.at(rows),
            seqs=self._seqs[rows],
            times_ms=self._times_ms[rows],
            numbers=numbers,
            segments=self._segments(rows),
            primary=self._predictions("primary_prediction", rows),
            candidate=self._predictions("candidate_prediction", rows),
            request_ids=self._texts("request_id", rows) if group.wanted.has_labels else (),
            units=self._texts("unit_hash", rows) if has_canary(self._counted) else None,
            differing=self._worst(rows, group),
        )

    def _combined(self, names: Sequence[str]) -> Coded:
        """Return for each row which combination of fields it has."""
        return combined([self._coded(name) for name in names])

    def _coded(self, name: str) -> Coded:
        """Return a column as codes, and what they stand for."""
        if name not in self._batch.schema.names:
            return Coded(np.zeros(self._batch.num_rows, dtype=np.int64), [None])
        column = self._batch.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        values = column.dictionary.to_pylist()
        codes = column.indices
        if codes.null_count:
            codes = pc.fill_null(codes, len(values))
            values.append(None)
        return Coded(codes.to_numpy().astype(np.int64), values or [None])

    def _floats(self, name: str) -> NDArray[np.float64]:
        if name not in self._batch.schema.names:
            return np.full(self._batch.num_rows, np.nan)
        found: NDArray[np.float64] = self._batch.column(name).to_numpy(zero_copy_only=False)
        return found.astype(np.float64, copy=False)

    def _texts(self, name: str, rows: Codes) -> list[Any]:
        if name not in self._batch.schema.names:
            return [None] * rows.size
        texts: list[Any] = self._batch.column(name).take(pa.array(rows)).to_pylist()
        return texts

    def _predictions(self, name: str, rows: Codes) -> Coded:
        """Return predictions, of which Parquet has the JSON; equal ones are read once."""
        column = self._coded(name)
        texts = ["null" if text is None else text for text in column.values]
        return Coded(column.codes[rows], orjson.loads("[" + ",".join(texts) + "]"))

    def _segments(self, rows: Codes) -> Coded | None:
        if "segments" not in self._batch.schema.names:
            return None
        column = self._batch.column("segments")
        if not len(column.keys):
            return None
        maps = column.take(pa.array(rows)).to_pylist()
        return coded([tuple(sorted(each)) if each else () for each in maps])

    def _worst(self, rows: Codes, group: Group) -> list[Record]:
        """Return the records of the pairs that may be among the worst, in their order."""
        chosen = worst_rows(group, self._counted, self._abs_diff, rows)
        if not chosen.size:
            return []
        records = self._details().take(pa.array(chosen)).to_pylist()
        for record in records:
            for name in ("primary_prediction", "candidate_prediction"):
                if record.get(name) is not None:
                    record[name] = orjson.loads(record[name])
        return list(records)
