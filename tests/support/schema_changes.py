"""What a change of a record's JSON Schema breaks for those who read the records.

Within one version only new fields may come. A reader was written against the old schema, so what it
says of each field must stay: its presence, its type and nullability, its choices, its form, its
unit. A wider type is as bad as a narrower one: the reader has no column, or no branch, for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: What may be worded better at any time.
_FREE = frozenset({"description", "title", "$comment", "examples"})


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what readers of `old` records would trip over in `new` ones; empty: nothing."""
    return [*_of_object(old, new, "")]


def _of_object(old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, field in before.items():
        place = f"{at}{name}"
        if name not in after:
            yield f"{place}: removed"
            continue
        yield from _of_field(field, after[name], place)
        was, now = (name in schema.get("required", ()) for schema in (old, new))
        if was != now:
            yield f"{place}: {'required' if was else 'optional'} before, and not so now"
    for name in after.keys() - before.keys():
        # A record of today must have what its schema requires; whoever adds a field writes it.
        if name not in new.get("required", ()):
            yield f"{at}{name}: new, and not required: every field is always present"
    for key in {*old, *new} - _FREE - {"properties", "required"}:
        if old.get(key) != new.get(key):
            yield f"{at or 'record'}: {key} was {old.get(key)!r}, is {new.get(key)!r}"


def _of_field(old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
    if "properties" in old or "properties" in new:
        yield from _of_object(old, new, f"{place}.")
        return
    for key in sorted({*old, *new} - _FREE):
        if _plain(old.get(key)) != _plain(new.get(key)):
            yield f"{place}: {key} was {old.get(key)!r}, is {new.get(key)!r}"


def _plain(value: Any) -> Any:
    """Return lists, whose order says nothing here, in one order."""
    return sorted(value, key=repr) if isinstance(value, list) else value
