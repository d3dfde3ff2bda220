"""Arrow batches of pairs as NumPy arrays whose types follow from the record, not from what is there.

Decides how null, JSON and maps look in an array; see `proxy.analysis.frames.Pairs.numpy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from proxy.analysis.predictions import single
from proxy.pairs.record import Field, Kind

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS: Final = frozenset({int, float})

Array = np.ndarray[Any, Any]


def arrays_of(fields: Sequence[Field], batches: Iterable[pa.RecordBatch]) -> dict[str, Array]:
    """Return one array for each field, of all rows of `batches`."""
    parts: dict[str, list[Array]] = {field.name: [] for field in fields}
    for batch in batches:
        for field in fields:
            parts[field.name].append(_array(field, batch.column(field.name)))
    found = {}
    for field in fields:
        array = _concatenated(parts.pop(field.name), field)
        found[field.name] = _predictions(array) if field.kind is Kind.ANY else array
    return found


def _array(field: Field, column: pa.Array) -> Array:
    if field.kind in (Kind.STRING, Kind.MAP, Kind.ANY):
        values = _values(field, column)
        # Filled one by one: lists of one length would else become a matrix.
        return np.fromiter(values, dtype=object, count=len(values))
    if field.is_required:
        found: Array = column.to_numpy(zero_copy_only=False)
        return found
    if field.kind is Kind.BOOLEAN:
        column = column.cast("int8")
    numbers: Array = column.to_numpy(zero_copy_only=False)  # with a null already float64
    return numbers.astype(np.float64, copy=False)


def _values(field: Field, column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if field.kind is Kind.MAP:
        return [None if value is None else dict(value) for value in values]
    if field.kind is Kind.ANY:
        # One call for all of them: each by itself takes three times as long.
        parsed = orjson.loads("[" + ",".join("null" if v is None else v for v in values) + "]")
        return [single(value) for value in parsed]
    return values


def _concatenated(parts: list[Array], field: Field) -> Array:
    if parts:
        return np.concatenate(parts)
    kinds = {Kind.INTEGER: np.int64, Kind.BOOLEAN: np.bool_}
    if field.kind in (Kind.STRING, Kind.MAP, Kind.ANY):
        return np.empty(0, dtype=object)
    return np.empty(0, dtype=kinds.get(field.kind) if field.is_required else np.float64)


def _predictions(found: Array) -> Array:
    """Return predictions as numbers or vectors where all that are not null are."""
    values = [value for value in found.tolist() if value is not None]
    if values and {*map(type, values)} <= _NUMBERS:
        return _filled(found, np.full(found.shape, np.nan))
    if not {*map(type, values)} <= {list} or len(lengths := {*map(len, values)}) != 1:
        return found
    if not {type(number) for value in values for number in value} <= _NUMBERS:
        return found
    return _filled(found, np.full((len(found), lengths.pop()), np.nan))


def _filled(found: Array, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = np.array([value is not None for value in found.tolist()], dtype=bool)
    numbers[rows] = np.array(found[rows].tolist(), dtype=np.float64)
    return numbers
