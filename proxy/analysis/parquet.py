"""Pairs as Arrow, and as Parquet both ways: a schema made from the record, a writer and a reading.

Every column has the type of its field, also where all of its values are null, so that files of
different days fit together. What may be any JSON (`*_prediction`) is its text: the column would
else be a number on Monday and a list on Tuesday.

Needs pyarrow, the extra `analysis`; importing this module without it raises `SourceError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from proxy.analysis.source import Record, Source
from proxy.errors import SourceError
from proxy.pairs.record import FIELDS, SCHEMA_VERSION, Field, Kind

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as exc:
    raise SourceError(
        "Arrow and Parquet need pyarrow, which is not installed; run: pip install "
        "'understudy[analysis]'"
    ) from exc

#: A row group ends after so many rows or bytes of Arrow: what a reader must hold, and we.
GROUP_ROWS: Final = 100_000
GROUP_BYTES: Final = 64 * 1024 * 1024
_READ_ROWS = 256

_ARROW: Final = {
    Kind.STRING: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.MAP: pa.map_(pa.string(), pa.string()),
    Kind.ANY: pa.string(),
}
_PYTHON: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: (bool,),
    Kind.MAP: (dict,),
}
#: Fields whose value in Parquet is not their value in the record, by how it is read back.
_FROM_ARROW: Final[dict[str, Callable[[Any], Any]]] = {
    field.name: orjson.loads if field.kind is Kind.ANY else dict
    for field in FIELDS
    if field.kind in (Kind.ANY, Kind.MAP)
}
_INT64: Final = 2**63
_ARROW_ERRORS: Final = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, AttributeError)


def arrow_schema(fields: Sequence[Field] = FIELDS) -> pa.Schema:
    """Return the Arrow schema of `fields`, with descriptions and units as metadata."""
    columns = [
        pa.field(
            field.name,
            _ARROW[field.kind],
            nullable=not field.is_required,
            metadata={"description": field.description, "unit": field.unit},
        )
        for field in fields
    ]
    return pa.schema(columns, metadata={"understudy.schema_version": SCHEMA_VERSION})


def has_types(schema: pa.Schema, names: Iterable[str]) -> bool:
    """Return whether those of these columns that `schema` has are of the record's types."""
    ours = arrow_schema()
    for name in {*names}.intersection(schema.names):
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if kind != ours.field(name).type:
            return False
    return True


class ArrowRows:
    """Makes record batches of pairs, the columns being `fields`.

    Attributes:
        schema: of the batches.
        bad: pairs left out because a field of theirs is not of its type.
    """

    def __init__(self, fields: Sequence[Field] = FIELDS) -> None:
        self.bad = 0
        self.schema = arrow_schema(fields)
        self._fields = fields
        names = [field.name for field in fields]
        # One call for a whole record; of a single name it would give no tuple.
        self._row_of = itemgetter(*names) if len(names) > 1 else lambda pair: (pair[names[0]],)

    def batch(self, pairs: list[Record]) -> pa.RecordBatch:
        """Return those of `pairs` that are good, as a batch."""
        try:
            return self._batch(pairs)
        except _ARROW_ERRORS:
            # Looking at every value costs more than converting it, so only a batch that cannot be
            # converted is looked at.
            good = [pair for pair in pairs if self._fits(pair)]
            self.bad += len(pairs) - len(good)
            return self._batch(good)

    def _batch(self, pairs: list[Record]) -> pa.RecordBatch:
        arrays = [
            _array(field, values)
            for field, values in zip(self._fields, self._columns(pairs), strict=True)
        ]
        for field, array in zip(self._fields, arrays, strict=True):
            if field.is_required and array.null_count:
                raise pa.ArrowInvalid(f"{field.name} is null")
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _columns(self, pairs: list[Record]) -> Iterable[Sequence[Any]]:
        try:
            rows = [self._row_of(pair) for pair in pairs]
        except KeyError:  # of a release that did not know all of them
            rows = [tuple(pair.get(field.name) for field in self._fields) for pair in pairs]
        return zip(*rows, strict=True) if rows else [()] * len(self._fields)

    def _fits(self, pair: Record) -> bool:
        return all(_is_of(field, pair.get(field.name)) for field in self._fields)


class ParquetWriter:
    """Writes pairs to a stream as one Parquet file, in zstd.

    Attributes:
        bad: pairs left out because a field of theirs is not of its type.
    """

    def __init__(self, stream: BinaryIO, fields: Sequence[Field]) -> None:
        self.bad = 0
        self._rows = ArrowRows(fields)
        self._writer = pq.ParquetWriter(stream, self._rows.schema, compression="zstd")
        self._batches: list[pa.RecordBatch] = []

    def write(self, pairs: list[Record]) -> int:
        """Write `pairs`; return how many of them were good."""
        batch = self._rows.batch(pairs)
        self.bad = self._rows.bad
        self._batches.append(batch)
        if is_full(self._batches):
            self._end_group()
        return int(batch.num_rows)

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._end_group()
        self._writer.close()

    def _end_group(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._rows.schema)
            self._writer.write_table(table, row_group_size=GROUP_ROWS)
            self._batches = []


def is_full(batches: Sequence[pa.RecordBatch], rows: int = GROUP_ROWS) -> bool:
    """Return whether `batches` have so many rows, or `GROUP_BYTES`, together."""
    return bool(
        sum(batch.nbytes for batch in batches) >= GROUP_BYTES
        or sum(batch.num_rows for batch in batches) >= rows
    )


def _array(field: Field, values: Sequence[Any]) -> pa.Array:
    if field.kind is Kind.ANY:
        values = [None if value is None else orjson.dumps(value).decode() for value in values]
    elif field.kind is Kind.MAP:
        values = [None if value is None else list(value.items()) for value in values]
    return pa.array(values, _ARROW[field.kind])


def _is_of(field: Field, value: Any) -> bool:
    if value is None:
        return not field.is_required
    if field.kind is Kind.ANY:
        return True
    if type(value) not in _PYTHON[field.kind]:
        return False
    if field.kind is Kind.INTEGER:
        return bool(-_INT64 <= value < _INT64)
    if field.kind is Kind.MAP:
        return all(type(label) is str for label in value.values())
    return True


def row_counts(path: Path) -> list[int]:
    """Return how many rows each row group of a Parquet file has.

    Raises:
        SourceError: it is damaged, or no Parquet.
    """
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"cannot read the Parquet file {path}: {exc}") from exc
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


class ParquetReading:
    """Reads the pairs of a Parquet file that `ParquetWriter` made; columns may have been left out.

    Raises:
        SourceError: it is damaged, or no Parquet.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self._path = path
        self._statistics = source.statistics()

    def records(self) -> Iterator[Record]:
        """Yield all rows as the records that they were."""
        try:
            with pq.ParquetFile(self._path) as file:
                yield from self._rows(file)
        except (pa.ArrowException, orjson.JSONDecodeError) as exc:
            raise SourceError(f"cannot read the Parquet file {self._path}: {exc}") from exc
        self._statistics.done += self._path.stat().st_size

    def finish(self) -> Iterator[Record]:
        """Yield nothing: a Parquet file is whole, or it cannot be read."""
        return iter(())

    def _rows(self, file: pq.ParquetFile) -> Iterator[Record]:
        yield from records_of(file, range(file.num_row_groups))


def records_of(file: pq.ParquetFile, row_groups: Iterable[int]) -> Iterator[Record]:
    """Yield rows as the records that they were."""
    changed = [name for name in file.schema_arrow.names if name in _FROM_ARROW]
    for batch in file.iter_batches(batch_size=_READ_ROWS, row_groups=[*row_groups]):
        for record in batch.to_pylist():
            for name in changed:
                if record[name] is not None:
                    record[name] = _FROM_ARROW[name](record[name])
            yield record
