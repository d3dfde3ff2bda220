"""The part of a pair record that is counted, as tuples.

A record has more than a hundred fields and a comparison needs half of them. Taking these at once and
letting the record go keeps a batch in the processor's cache: 80,000 pairs/s where batches of whole
records gave 40,000 (records of 3.1 KB in zstd, one core).
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final

from proxy.analysis.source import Record
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
#: All fields whose values are counted, and two that evidence needs beside them; versions first.
COUNTED_FIELDS: Final = (
    *LABEL_FIELDS[:2], *CELL_FIELDS, *LABEL_FIELDS[2:], "replicate_status", "loss_diff",
)  # fmt: skip
NUMBER_FIELDS: Final = ("primary_latency_ms", "candidate_latency_ms", "abs_diff", "rel_diff")
STREAM_FIELDS: Final = tuple(
    f"{side}_{name}"
    for name in ("ttft_ms", "itl_p50_ms", "itl_max_ms")
    for side in ("primary", "candidate")
)
PREDICTION_FIELDS: Final = ("primary_prediction", "candidate_prediction")
#: What is taken of each pair on its own, behind its key.
SINGLE_FIELDS: Final = (
    *NUMBER_FIELDS, *STREAM_FIELDS, *PREDICTION_FIELDS, "segments", "request_id",
)  # fmt: skip

#: A record without these cannot be counted; the others are null where a file leaves them out.
REQUIRED_FIELDS: Final = (*KEY_FIELDS, *CELL_FIELDS, *LABEL_FIELDS, *NUMBER_FIELDS)
ALL_FIELDS: Final = (*KEY_FIELDS, *COUNTED_FIELDS, *SINGLE_FIELDS)

#: The values of `COUNTED_FIELDS`, and of the key and `SINGLE_FIELDS`, in their order.
Counted = tuple[Any, ...]
Row = tuple[Any, ...]
ROW_FIELDS: Final = (*KEY_FIELDS, *SINGLE_FIELDS)

#: Return either tuple of a record; raise KeyError when a field is missing.
counted_of = itemgetter(*COUNTED_FIELDS)
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
_COUNTED_KINDS: Final = tuple(
    _KINDS[_DEFINITIONS[name].kind] + (() if _DEFINITIONS[name].is_required else (type(None),))
    for name in COUNTED_FIELDS
)
#: What stands for a field that a file has left out, where null does not do.
_ABSENT: Final[dict[str, Any]] = {"segments": {}}


def completed(record: Record) -> Record | None:
    """Return `record` with null for what is not required and absent; None where more is."""
    if not all(name in record for name in REQUIRED_FIELDS):
        return None
    return {name: record.get(name, _ABSENT.get(name)) for name in ALL_FIELDS}


def fault_of(record: Record) -> str | None:
    """Return what keeps `record` from being a pair record that can be counted, or None.

    Only the fields that are counted are looked at.
    """
    for name in ALL_FIELDS:
        if name not in record:
            if name in REQUIRED_FIELDS:
                return f"it has no {name}"
            continue
        field, value = _DEFINITIONS[name], record[name]
        if value is None and (not field.is_required or name not in REQUIRED_FIELDS):
            continue
        if field.kind is not Kind.ANY and type(value) not in _KINDS[field.kind]:
            return f"its {name} is no {field.kind}"
    if record["schema_version"] != SCHEMA_VERSION:
        return f"its schema_version is {record['schema_version'][:20]!r}"
    if not 0 <= record["seq"] < 2**63:
        return "its seq is out of range"
    return None


def counted_fault(counted: Counted) -> str | None:
    """Return which of the values is of a wrong type, or None."""
    for name, kinds, value in zip(COUNTED_FIELDS, _COUNTED_KINDS, counted, strict=True):
        if type(value) not in kinds:
            return f"its {name} is no {_DEFINITIONS[name].kind}"
    return None


def row_fault(row: Row, counted: Counted) -> str | None:
    """Return what `fault_of` says of the record that these were taken from."""
    values = dict(zip(ROW_FIELDS, row, strict=True))
    return fault_of(values | dict(zip(COUNTED_FIELDS, counted, strict=True)))
