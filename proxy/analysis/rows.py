"""The part of a pair record that is counted, as tuples.

A record has more than a hundred fields and a comparison needs half of them. Taking these at once and
letting the record go keeps a batch in the processor's cache: 80,000 pairs/s where batches of whole
records gave 40,000 (records of 3.1 KB in zstd, one core).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from proxy.analysis.source import Record
from proxy.pairs.record import FIELDS, SCHEMA_VERSION, Field, Kind

#: Where a pair belongs; with its number it is known by these.
PLACE_FIELDS: Final = ("schema_version", "instance", "candidate", "route")
INSTANCE, CANDIDATE, ROUTE = range(1, 4)
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
#: All fields whose values are counted, and those that evidence needs beside them; versions first.
COUNTED_FIELDS: Final = (
    *LABEL_FIELDS[:2], *CELL_FIELDS, *LABEL_FIELDS[2:], "replicate_status", "loss_diff",
    "assign_prob", "ramp_weight_bp",
)  # fmt: skip
NUMBER_FIELDS: Final = ("primary_latency_ms", "candidate_latency_ms", "abs_diff", "rel_diff")
STREAM_FIELDS: Final = tuple(
    f"{side}_{name}"
    for name in ("ttft_ms", "itl_p50_ms", "itl_max_ms")
    for side in ("primary", "candidate")
)
PREDICTION_FIELDS: Final = ("primary_prediction", "candidate_prediction")
#: What is taken of each pair on its own.
SEQ, TS_MS = range(2)
SINGLE_FIELDS: Final = (
    "seq", "ts_ms", *NUMBER_FIELDS, *STREAM_FIELDS, *PREDICTION_FIELDS, "segments", "request_id",
    "unit_hash",
)  # fmt: skip

#: A record without these cannot be counted; the others are null where a file leaves them out.
REQUIRED_FIELDS: Final = (
    *PLACE_FIELDS,
    "seq",
    "ts_ms",
    *CELL_FIELDS,
    *LABEL_FIELDS,
    *NUMBER_FIELDS,
)
ALL_FIELDS: Final = tuple(dict.fromkeys((*PLACE_FIELDS, *COUNTED_FIELDS, *SINGLE_FIELDS)))

#: The values of `PLACE_FIELDS`, `COUNTED_FIELDS` and `SINGLE_FIELDS`, in their order.
Place = tuple[Any, ...]
Counted = tuple[Any, ...]
Row = tuple[Any, ...]

#: Return such a tuple of a record; raise KeyError when a field is missing.
place_of = itemgetter(*PLACE_FIELDS)
counted_of = itemgetter(*COUNTED_FIELDS)
row_of = itemgetter(*SINGLE_FIELDS)

_DEFINITIONS: Final[dict[str, Field]] = {field.name: field for field in FIELDS}
_KINDS: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: (bool,),
    Kind.MAP: (dict,),
    Kind.ANY: (object,),
}
_NEVER_NULL: Final = frozenset(name for name in REQUIRED_FIELDS if _DEFINITIONS[name].is_required)
_COUNTED_KINDS: Final = tuple(
    _KINDS[_DEFINITIONS[name].kind] + (() if name in _NEVER_NULL else (type(None),))
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
    for name in REQUIRED_FIELDS:
        if name not in record:
            return f"it has no {name}"
    fault = _value_fault({name: record[name] for name in ALL_FIELDS if name in record})
    return fault or place_fault(place_of(record), record["seq"], record["ts_ms"])


def _value_fault(values: Record) -> str | None:
    for name, value in values.items():
        field = _DEFINITIONS[name]
        if value is None and name not in _NEVER_NULL:
            continue
        if field.kind is not Kind.ANY and type(value) not in _KINDS[field.kind]:
            return f"its {name} is no {field.kind}"
    return None


def are_sound(places: Iterable[Place], seqs: Sequence[Any], times_ms: Sequence[Any]) -> bool:
    """Return whether these are of pairs that can be counted.

    Args:
        places: distinct ones.
        seqs: numbers of all pairs, at least one.
        times_ms: their times.
    """
    return (
        all(place[0] == SCHEMA_VERSION and {*map(type, place)} == {str} for place in places)
        and {*map(type, seqs), *map(type, times_ms)} == {int}
        and min(seqs) >= 0
        and max(seqs) < 2**63
        and max(map(abs, times_ms)) < 2**63
    )


def place_fault(place: Place, seq: Any, ts_ms: Any) -> str | None:
    """Return what keeps a pair from being counted, or None."""
    if are_sound([place], [seq], [ts_ms]):
        return None
    named = dict(zip(PLACE_FIELDS, place, strict=True))
    fault = _value_fault(named | {"seq": seq, "ts_ms": ts_ms})
    if fault is None and place[0] != SCHEMA_VERSION:
        return f"its schema_version is {place[0][:20]!r}"
    return fault or "its seq or ts_ms is out of range"


def counted_fault(counted: Counted) -> str | None:
    """Return which of the values is of a wrong type, or None."""
    for name, kinds, value in zip(COUNTED_FIELDS, _COUNTED_KINDS, counted, strict=True):
        if type(value) not in kinds:
            return f"its {name} is no {_DEFINITIONS[name].kind}"
    return None


def row_fault(row: Row, counted: Counted) -> str | None:
    """Return which value of a row is of a wrong type, or None."""
    values = dict(zip(SINGLE_FIELDS, row, strict=True))
    return _value_fault(values | dict(zip(COUNTED_FIELDS, counted, strict=True)))
