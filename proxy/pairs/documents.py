"""JSON documents at their edges: what orjson refuses to read, and what it could not write again.

orjson is strict and fast and takes all but a few bodies. Python servers (json.dumps, Flask,
MLflow) also write `NaN` and `Infinity`, which are not JSON: those are read leniently, so that the
record can say `not_finite` instead of `not_json`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import orjson

#: Reasons, as they end a `not_comparable_reason`.
NOT_JSON: Final = "not_json"
NOT_FINITE: Final = "not_finite"
TOO_DEEP: Final = "too_deep"

#: orjson reads 1,024 levels and writes 254; what it cannot write the log cannot hold. A body with
#: fewer brackets than this is not deep, which one count in C shows.
_SHALLOW_BRACKETS = 200

#: What Python's json reads and orjson refuses: json.dumps' own words, numbers beyond a double.
_BEYOND_JSON = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}|[0-9]{309}")


#: What `parse` and `parse_leniently` return for what is not JSON by any reading; null is a document.
NO_DOCUMENT: Final = object()


def is_deep(value: Any, body: bytes) -> bool:
    """Return whether `value`, a part of the document in `body`, has too many levels to write."""
    if len(body) < _SHALLOW_BRACKETS:
        return False
    if type(value) is list and value and type(value[0]) is float and _is_surely_finite(value):
        return False  # a vector: its sum takes half as long as the count
    if body.count(b"[") + body.count(b"{") < _SHALLOW_BRACKETS:
        return False
    return not is_writable(value)


def is_writable(value: Any) -> bool:
    """Return whether a record can hold `value` (levels, integers of 64 bits)."""
    try:
        orjson.dumps([value])
    except orjson.JSONEncodeError:
        return False
    return True


def finite(value: Any) -> tuple[Any, bool]:
    """Return `value` with null for each NaN or infinity, and whether there was any."""
    if isinstance(value, float):
        return (value, False) if math.isfinite(value) else (None, True)
    if isinstance(value, list):
        if _is_surely_finite(value):
            return value, False
        pairs = [finite(item) for item in value]
        return [item for item, _ in pairs], any(found for _, found in pairs)
    if isinstance(value, dict):
        members = {key: finite(item) for key, item in value.items()}
        return (
            {key: item for key, (item, _) in members.items()},
            any(found for _, found in members.values()),
        )
    return value, False


def _is_surely_finite(values: list[Any]) -> bool:
    """Return whether a list holds numbers alone, all of them finite; may miss some that is.

    A sum is not finite when one of its terms is not. It costs a fifth of looking at each.
    """
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


def parse(body: bytes) -> Any:
    """Return the document in `body`, read strictly and then leniently, or `NO_DOCUMENT`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_leniently(body)


def parse_leniently(body: bytes) -> Any:
    """Return the document in a body that orjson refused, or `NO_DOCUMENT`.

    It may hold NaN and infinities, and nothing else that orjson could not write.
    """
    # A second parse of every image or text answer would be waste.
    if _BEYOND_JSON.search(body) is None:
        return NO_DOCUMENT
    try:
        value = json.loads(body.decode(), parse_int=_parse_int)
        orjson.dumps(value)  # refuses lone surrogates and too many levels
    except (ValueError, RecursionError, orjson.JSONEncodeError):
        return NO_DOCUMENT
    return value


def _parse_int(digits: str) -> int | float:
    """Return an integer, or a float beyond 64 bits, as orjson reads it."""
    if len(digits) < 20:
        return int(digits)
    return float(digits)
