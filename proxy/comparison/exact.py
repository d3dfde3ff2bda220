"""Equality of JSON values: same shape, same keys, same strings, numerically equal numbers.

`1` equals `1.0` (JSON has one kind of number) and never `true`; the order of keys does not count.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.comparison.result import EQUAL, Comparison, differs, key_path


def compare_exact(primary: Any, candidate: Any, root: str) -> Comparison:
    """Return whether two JSON values are equal; text and base64 bodies are strings here.

    Args:
        primary: a value of at most 250 levels, as `proxy.pairs.protocols.extract` gives it.
        candidate: the other value.
        root: path of the values, the start of `first_diff_path`.
    """
    if primary is candidate:
        return EQUAL
    if type(primary) is str and type(candidate) is str:
        return EQUAL if primary == candidate else differs(root)
    # Python holds True == 1; the second, textual check sees that in C. Only values that pass the
    # first and not the second (keys in another order, 1 against 1.0) are walked in Python.
    if primary == candidate and orjson.dumps(primary) == orjson.dumps(candidate):
        return EQUAL
    path = first_difference(primary, candidate, root)
    return EQUAL if path is None else differs(path)


def first_difference(primary: Any, candidate: Any, path: str) -> str | None:
    """Return the path of the first difference in the primary's order, or None."""
    if isinstance(primary, dict) and isinstance(candidate, dict):
        return _in_objects(primary, candidate, path)
    if isinstance(primary, list) and isinstance(candidate, list):
        return _in_arrays(primary, candidate, path)
    is_same = primary == candidate and isinstance(primary, bool) == isinstance(candidate, bool)
    return None if is_same else path or "$"


def _in_objects(primary: dict[str, Any], candidate: dict[str, Any], path: str) -> str | None:
    for key, value in primary.items():
        if key not in candidate:
            return key_path(path, key)
        found = first_difference(value, candidate[key], key_path(path, key))
        if found is not None:
            return found
    return next((key_path(path, key) for key in candidate if key not in primary), None)


def _in_arrays(primary: list[Any], candidate: list[Any], path: str) -> str | None:
    for index, (left, right) in enumerate(zip(primary, candidate, strict=False)):
        found = first_difference(left, right, f"{path}[{index}]")
        if found is not None:
            return found
    if len(primary) != len(candidate):
        return f"{path}[{min(len(primary), len(candidate))}]"
    return None
