"""The pairs of a source as Arrow record batches, those that a `Select` asks for.

Parquet is read by columns, so that no pair becomes a Python object; the choice is the same as
`Select.pairs` makes among records. Files of other types or without what a pair must have go the way of
records, as all else does, which is slower and tells what is wrong.

Needs pyarrow, the extra `analysis`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from proxy.analysis.export import BATCH_PAIRS
from proxy.analysis.pair_filter import IDENTITY, PairFilter
from proxy.analysis.parquet import ArrowRows, arrow_schema, has_types
from proxy.analysis.select import Select
from proxy.analysis.source import Record, Source
from proxy.analysis.sources import FileSource
from proxy.errors import SourceError
from proxy.pairs.record import SCHEMA_VERSION, Field

#: Rows at once; a row group of ours has 64 MiB at most, whatever this is.
_ROWS: Final = 8_192


def batches_of(
    source: Source, fields: Sequence[Field], select: Select, converter: ArrowRows
) -> Iterator[pa.RecordBatch]:
    """Yield the pairs in `source` that `select` asks for, as batches of `fields`, in their order.

    Args:
        source: read once; its statistics grow.
        fields: the columns; one called `segments.NAME` is a label of the request.
        select: which pairs to take.
        converter: makes batches of records; it counts those with a field of a wrong type.

    Raises:
        SourceError: the source cannot be read.
    """
    if not isinstance(source, FileSource):
        yield from _converted(source, fields, select, converter)
        return
    for path in source.paths:
        if _can_take(path, fields, select.wanted):
            yield from _taken_of(path, fields, select)
            source.statistics().done += path.stat().st_size
        else:
            yield from _converted(source.records_of(path), fields, select, converter)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return batches, one at least, as one."""
    table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches(max_chunksize=table.num_rows)[0]


def _converted(
    records: Iterable[Record], fields: Sequence[Field], select: Select, converter: ArrowRows
) -> Iterator[pa.RecordBatch]:
    labels = [field.name for field in fields if "." in field.name]
    pairs = select.pairs(records)
    while some := list(islice(pairs, BATCH_PAIRS)):
        for pair in some if labels else ():
            segments = pair.get("segments") or {}
            for name in labels:
                pair[name] = segments.get(name.partition(".")[2])
        yield converter.batch(some)


def _can_take(path: Path, fields: Sequence[Field], wanted: PairFilter) -> bool:
    """Return whether the file is Parquet with all that is asked for, in the record's types."""
    if wanted.is_different or wanted.is_failed:
        return False
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False  # no Parquet, gone or damaged: the way of records tells which
    needed = {*IDENTITY, *(field.name for field in fields if field.is_required)}
    return needed <= {*schema.names} and has_types(schema, [*IDENTITY, *_stored(fields)])


def _taken_of(path: Path, fields: Sequence[Field], select: Select) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(fields)
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            there = {*file.schema_arrow.names}
            names = [n for n in dict.fromkeys((*IDENTITY, *_stored(fields))) if n in there]
            never_null = {*IDENTITY, *(field.name for field in fields if field.is_required)}
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names):
                    rows = np.flatnonzero(_is_taken(batch, select, never_null))
                    yield _columns(batch.take(pa.array(rows)), fields, schema)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"cannot read the Parquet file {path}: {exc}") from exc


def _stored(fields: Sequence[Field]) -> list[str]:
    """Return the names of the columns in which `fields` are."""
    return [field.name.partition(".")[0] for field in fields]


def _is_taken(
    batch: pa.RecordBatch, select: Select, never_null: Iterable[str]
) -> NDArray[np.bool_]:
    """Return which rows are pairs, asked for, and not seen before; count them all."""
    good = _mask(pc.equal(batch.column("schema_version"), SCHEMA_VERSION))
    good &= _mask(pc.greater_equal(batch.column("seq"), 0))
    for name in never_null:
        if batch.column(name).null_count:
            good &= _mask(pc.is_valid(batch.column(name)))
    select.note(records=batch.num_rows, bad=batch.num_rows - int(np.count_nonzero(good)))
    rows = np.flatnonzero(good & _is_wanted(batch, select.wanted))
    seqs = batch.column("seq").take(pa.array(rows)).to_numpy()
    places = pa.array(rows)
    instances, candidates = (
        batch.column(name).take(places).dictionary_encode() for name in ("instance", "candidate")
    )
    codes = instances.indices.to_numpy() * np.int64(len(candidates.dictionary))
    codes = codes + candidates.indices.to_numpy()
    found = np.zeros(batch.num_rows, dtype=np.bool_)
    for code in np.unique(codes).tolist():
        instance, candidate = divmod(code, len(candidates.dictionary))
        mine = codes == code
        found[rows[mine]] = select.new_among(
            instances.dictionary[instance].as_py(),
            candidates.dictionary[candidate].as_py(),
            seqs[mine],
        )
    return found


def _is_wanted(batch: pa.RecordBatch, wanted: PairFilter) -> NDArray[np.bool_]:
    found = np.ones(batch.num_rows, dtype=np.bool_)
    for name, value in (("route", wanted.route), ("candidate", wanted.candidate)):
        if value:
            found &= _mask(pc.equal(batch.column(name), value))
    if wanted.since_ms is not None:
        found &= _mask(pc.greater_equal(batch.column("ts_ms"), wanted.since_ms))
    if wanted.until_ms is not None:
        found &= _mask(pc.less(batch.column("ts_ms"), wanted.until_ms))
    return found


def _mask(found: pa.BooleanArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)  # noqa: FBT003
    return mask


def _columns(batch: pa.RecordBatch, fields: Sequence[Field], schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with the columns of `fields`, null where the file leaves one out."""
    arrays = [_column(batch, field.name, schema.field(field.name).type) for field in fields]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> Any:
    stored, _, label = name.partition(".")
    if stored not in batch.schema.names:
        return pa.nulls(batch.num_rows, kind)
    column = batch.column(stored)
    if label:
        return pc.map_lookup(column, label, "first")
    return column.cast(kind)
