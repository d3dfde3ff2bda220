"""The part of a pair record that is counted, as a tuple, and batches of such tuples as columns.

A record has some ninety fields and a comparison needs thirty. Taking these at once and letting the
record go keeps a batch in the processor's cache: 80,000 pairs/s where batches of whole records
gave 40,000 (records of 3.1 KB in zstd, one core).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from proxy.analysis.sources import Record
from proxy.pairs.record import FIELDS, SCHEMA_VERSION, Field, Kind

#: Which pair it is, and where it belongs.
KEY_FIELDS: Final = ("schema_version", "instance", "candidate", "seq", "route", "ts_ms")
#: Fields of few values, counted by combination.
CELL_FIELDS: Final = (
    "primary_status", "candidate_status", "primary_http_status", "candidate_http_status",
    "primary_body_state", "candidate_body_state", "comparable", "equal", "replicate_equal",
    "not_comparable_reason", "comparator", "mode", "served_by", "rescued",
)  # fmt: skip
#: Fields that may hold many values, counted each on its own.
LABEL_FIELDS: Final = (
    "primary_model_version", "candidate_model_version", "config_version", "experiment_id",
    "sample_prob", "primary_error", "candidate_error",
)  # fmt: skip
NUMBER_FIELDS: Final = ("primary_latency_ms", "candidate_latency_ms", "abs_diff", "rel_diff")

ROW_FIELDS: Final = KEY_FIELDS + CELL_FIELDS + LABEL_FIELDS + NUMBER_FIELDS
EQUAL: Final = ROW_FIELDS.index("equal")

#: The values of `ROW_FIELDS`, in their order.
Row = tuple[Any, ...]

#: Return the row of a record; raises KeyError when a field is missing.
row_of = itemgetter(*ROW_FIELDS)

_DEFINITIONS: Final[dict[str, Field]] = {field.name: field for field in FIELDS}
_KINDS: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: (bool,),
    Kind.MAP: (dict,),
    Kind.ANY: (object,),
}


class Columns:
    """Rows turned on their side: `columns["ts_ms"]` is a tuple of all their `ts_ms`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._columns = dict(zip(ROW_FIELDS, zip(*rows, strict=True), strict=True))

    def __getitem__(self, name: str) -> tuple[Any, ...]:
        return self._columns[name]


def fault_of(record: Record) -> str | None:
    """Return what keeps `record` from being a pair record that can be counted, or None.

    Only the fields that are counted are looked at.
    """
    for name in ROW_FIELDS:
        if name not in record:
            return f"it has no {name}"
        field, value = _DEFINITIONS[name], record[name]
        if value is None and not field.is_required:
            continue
        if type(value) not in _KINDS[field.kind]:
            return f"its {name} is no {field.kind}"
    if record["schema_version"] != SCHEMA_VERSION:
        return f"its schema_version is {record['schema_version'][:20]!r}"
    if not 0 <= record["seq"] < 2**63:
        return "its seq is out of range"
    return None


def row_fault(row: Row) -> str | None:
    """Return what `fault_of` says of the record that `row` was taken from."""
    return fault_of(dict(zip(ROW_FIELDS, row, strict=True)))
